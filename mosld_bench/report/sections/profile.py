"""The section on what the methods cost at inference and in training, from the profile that `measure.py` has left."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mosld_bench.format import counted, digits, listed
from mosld_bench.records.profile import Entry, Profile, Timed, spread
from mosld_bench.report.analysis import Analysis
from mosld_bench.report.document import Run, Section, paragraph, section
from mosld_bench.report.figures.style import COLUMN, Plot, looks
from mosld_bench.report.labels import MISSING, count, hardware_label
from mosld_bench.report.table import Cell, Column, Line, Table
from mosld_bench.spec.recipe import Recipe

TITLE = "Cost at inference and in training"


def profile_section(analysis: Analysis) -> Section | None:
    """What a profile found; None where none was made, or none of recipes as they are now."""
    profile = analysis.profile
    if profile is None or not (entries := _current(analysis, profile)):
        return None
    left_out = len(profile.entries) - len(entries)
    hardware, command = profile.meta_info.get("hardware"), profile.meta_info.get("command")
    return section(
        TITLE,
        paragraph(
            Run("profile", "ref"),
            " and ",
            Run("relative-time", "ref"),
            f" compare {counted(len(entries) - 1, 'method')} with the frozen base on {_what(profile)}: measured in "
            f"turns in one process, {counted(profile.load.rounds, 'round')}, on {hardware_label(hardware, '')}.",
            f" Left out, as the recipe was changed since: {counted(left_out, 'row')}." if left_out else "",
            " The command: " if command else "",
            Run(str(command or ""), "mono"),
        ),
        _table(profile, entries),
    )


def _current(analysis: Analysis, profile: Profile) -> list[Entry]:
    """The entries whose recipe is defined as it was when they were measured; the frozen base among them."""
    known = {recipe.name: recipe.identity for recipe in analysis.recipes}
    entries = [e for e in profile.entries if known.get(e.recipe.name, e.recipe.identity) == e.recipe.identity]
    return entries if len(entries) > 1 else []


def _what(profile: Profile) -> str:
    """'SmolLM2-135M with random weights, 134,515,008 parameters, in float32 on cpu'."""
    budgets = dict.fromkeys(entry.budget.label for entry in profile.entries if entry.fit.target is not None)
    size = f", adapters of {' or '.join(budgets)}" if budgets else ""
    weights = " with random weights" if profile.random_weights else ""
    return (
        f"the model {profile.model.name}{weights} ({profile.base_parameters:,} parameters) in {profile.dtype} on a "
        f"{_DEVICES[profile.device]}{size}"
    )


def _load(profile: Profile) -> str:
    load = profile.load
    again = ", layers computed again in the backward pass" if profile.checkpointing else ""
    return (
        f"Training: steps of {counted(load.batch, 'text')} of {load.prompt_tokens} tokens{again}. Prompt: "
        f"{load.prompt_tokens} tokens, {load.streams} at a time, to the scores of the next token. Decoding: "
        f"{load.new_tokens} tokens, greedily, with the cache of keys and values."
    )


_DEVICES = {"cpu": "CPU", "cuda": "GPU"}
_TIMED: tuple[Timed, ...] = ("train", "prompt", "decode")


def _table(profile: Profile, entries: Sequence[Entry]) -> Table:
    unit, name = profile.flop_unit
    reference = profile.entry(profile.reference)
    against = f"× {reference.recipe.title}" if reference else "×"
    decoding = any(entry.decode_memory for entry in entries)
    lines = []
    for entry in entries:
        train, decode = profile.rate(entry, "train"), profile.rate(entry, "decode")
        step, ratios = entry.flops.step, {what: profile.relative(entry, what) for what in _TIMED}
        cells = [
            Cell(entry.recipe.title),
            *(Cell(count(value)) for value in (entry.fit.trainable, entry.active, entry.stored)),
            Cell(f"{entry.flops.forward / unit:,.2f}"),
            Cell(MISSING if step is None else f"{step / unit:,.2f}"),
            Cell(f"{train.median:,.0f}" if train else MISSING),
            _ratio(ratios["train"]),
            Cell(_mib(entry.train_memory)),
            Cell(digits(1e3 * median(entry.prompt))),
            _ratio(ratios["prompt"]),
            Cell(digits(decode.median) if decode else MISSING),
            _ratio(ratios["decode"]),
            *([Cell(_mib(entry.decode_memory))] if decoding else []),
        ]
        lines.append(Line(tuple(cells)))
    notes = (
        f"{_load(profile)} Figures are medians; beside a quotient stand its lowest and highest value of a round.",
        "Active parameters enter one token's output: of a mixture, those of the experts that its router picks.",
        f"{name}s are those of matrix products as torch counts them, attention a full square{_agreement(profile)}. "
        "They are those computed: experts are stacked, and one that was not picked costs what a picked one does.",
        f"Peak memory: {profile.memory_note}.",
        *_noise(entries),
    )
    columns = [
        Column("Method", "left"),
        *(Column(title, group="Parameters") for title in ("trainable", "active", "stored")),
        *(Column(title, group=f"{name}s a token") for title in ("prompt", "training")),
        *(Column(title, group="Training") for title in ("tokens/s", against, "MiB")),
        *(Column(title, group="Prompt") for title in ("ms", "× base")),
        *(Column(title, group="Decoding") for title in ("tokens/s", "× base", *(["MiB"] if decoding else []))),
    ]
    return Table(
        "profile",
        f"Cost of {_what(profile)}. ×: time relative to the frozen base{_training_against(reference)}, within a round.",
        tuple(columns),
        tuple(lines),
        pd.DataFrame([_numbers(profile, entry) for entry in entries]).astype(dict.fromkeys(_WHOLE, "Int64")),
        notes,
        wide=True,
    )


def _agreement(profile: Profile) -> str:
    """How far the counter is from the formula."""
    unknown = [entry.recipe.title for entry in profile.entries if entry.flops.forward_formula is None]
    if profile.gap is None:
        return ""
    but = f" (there is none for {listed(unknown)})" if unknown else ""
    apart = f"differ from those of the formula of flops.py by {100 * profile.gap:.2g} % at most"
    return f"; they {apart if profile.gap else 'equal those of the formula of flops.py'}{but}"


def _noise(entries: Sequence[Entry]) -> list[str]:
    """What a reader can tell the noise by: a method that leaves the model's work as it is."""
    same = [entry.recipe.title for entry in entries if entry.fit.trainable == entry.fit.total]
    return [f"{listed(same)} answers by the same work as the base: how far it is from 1 is noise."] if same else []


_WHOLE = ("trainable_parameters", "active_parameters", "stored_parameters")


def _training_against(reference: Entry | None) -> str:
    return f", of training to {reference.recipe.title}" if reference else ""


def _ratio(ratio: Any) -> Cell:
    return Cell(f"{ratio.median:.2f}", f"{ratio.low:.2f}–{ratio.high:.2f}") if ratio else Cell(MISSING)


def _mib(values: Sequence[int]) -> str:
    return f"{median(values) / 2**20:,.0f}" if values else MISSING


def _numbers(profile: Profile, entry: Entry) -> dict[str, Any]:
    """A line of the CSV: medians, lowest and highest values over the rounds."""
    found: dict[str, Any] = {
        "recipe": entry.recipe.name,
        "budget": entry.budget,
        "model": profile.model.name,
        "device": profile.device,
        "dtype": profile.dtype,
        "trainable_parameters": entry.fit.trainable,
        "active_parameters": entry.active,
        "stored_parameters": entry.stored,
        "flops_a_token": entry.flops.forward,
        "flops_a_token_formula": entry.flops.forward_formula,
        "training_flops_a_token": entry.flops.step,
        "training_flops_a_token_formula": entry.flops.step_formula,
    }
    measured = {
        "train_tokens_per_second": profile.rate(entry, "train"),
        "train_time_relative": profile.relative(entry, "train"),
        "train_peak_mib": spread([value / 2**20 for value in entry.train_memory]),
        "prompt_ms": spread([1e3 * value for value in entry.prompt]),
        "prompt_time_relative": profile.relative(entry, "prompt"),
        "decode_tokens_per_second": profile.rate(entry, "decode"),
        "decode_time_relative": profile.relative(entry, "decode"),
        "decode_peak_mib": spread([value / 2**20 for value in entry.decode_memory]),
    }
    for key, values in measured.items():
        for part in ("median", "low", "high"):
            found[f"{key}_{part}"] = getattr(values, part) if values else None
    return found


def relative_time(analysis: Analysis) -> Plot | str:
    """Time of each method relative to the frozen base: prompt, decoding; of training relative to the reference."""
    profile = analysis.profile
    if profile is None or not (entries := _current(analysis, profile)):
        return ""
    rows = [entry for entry in entries if entry.recipe.method != "base"]
    reference = profile.entry(profile.reference)
    panels = [("prompt", "Prompt", "× base"), ("decode", "Decoding", "× base")]
    panels += [("train", "Training", f"× {reference.recipe.title}")] if reference else []
    figure = Figure(figsize=(COLUMN, 0.165 * len(rows) + 0.7), layout="constrained")
    look = looks(_palette(analysis, entries))
    for axes, (what, title, against) in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        for y, entry in enumerate(rows):
            own, ratio = look[entry.recipe.name], profile.relative(entry, what)  # type: ignore[arg-type]
            if ratio:
                axes.plot([ratio.low, ratio.high], [y, y], color=own.colour, linewidth=1.2)
                axes.plot(ratio.median, y, marker=own.marker, color=own.colour, markersize=4.5)
        axes.axvline(1, color="#555555", linewidth=0.8)
        axes.set_yticks(range(len(rows)), [entry.recipe.title for entry in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=(1, 2, 5, 10)))
        axes.margins(x=0.12)
        axes.set_title(title)
        axes.set_xlabel(against)
    rounds, where = counted(profile.load.rounds, "round"), f"{profile.dtype}, {_DEVICES[profile.device]}"
    caption = (
        f"Time relative to the frozen base{_training_against(reference)}: median over {rounds} of the quotient within "
        f"a round, and its range; {profile.model.name}, {where}. Left is faster. The axes do not begin at zero."
    )
    return Plot("relative-time", "the time that a method takes", caption, figure, section=TITLE)


def _palette(analysis: Analysis, entries: Sequence[Entry]) -> list[Recipe]:
    """The recipes of the report first, so that each looks as it does elsewhere."""
    known = {recipe.name: recipe for recipe in analysis.recipes}
    return [*known.values(), *(entry.recipe for entry in entries if entry.recipe.name not in known)]
