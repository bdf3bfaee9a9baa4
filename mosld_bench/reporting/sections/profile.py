"""The section on what the methods cost at inference and in training, from the study's profile."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import pandas as pd

from mosld_bench.format import counted, digits
from mosld_bench.records.profile import Entry, Phase, Profile, Spread, spread
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Code, Run, Section, paragraph, section
from mosld_bench.reporting.labels import MISSING, count, hardware_label, named
from mosld_bench.reporting.table import Cell, Column, Line, Table

TITLE = "Cost at inference and in training"


def profile_section(analysis: Analysis) -> Section | None:
    """The profile in a sentence and a table; None where none was made, or none of recipes as they are now."""
    profile = analysis.profile
    if profile is None or not (entries := profile.current(analysis.recipes)):
        return None
    left_out = len(profile.entries) - len(entries)
    hardware, command = profile.meta_info.get("hardware"), profile.meta_info.get("command")
    return section(
        TITLE,
        paragraph(
            Run("profile", "ref"),
            " and ",
            Run("relative-time", "ref"),
            f" compare {counted(len(entries) - 1, 'method')} with the frozen base on {_measured_model(profile)}: "
            f"measured in turns in one process, {counted(profile.load.rounds, 'round')}, on "
            f"{hardware_label(hardware, '')}.",
            f" Left out, as the recipe was changed since: {counted(left_out, 'row')}." if left_out else "",
            " The command:" if command else "",
        ),
        Code((str(command),)) if command else None,
        _table(profile, entries),
    )


def against(profile: Profile) -> str:
    """'relative to the frozen base, of training to LoRA': what the times of a profile are divided by."""
    reference = profile.entry(profile.reference)
    return "relative to the frozen base" + (f", of training to {reference.recipe.title}" if reference else "")


def _measured_model(profile: Profile) -> str:
    """'the model SmolLM2-135M with random weights (134,515,008 parameters) in float32 on a CPU'."""
    budgets = dict.fromkeys(entry.budget.label for entry in profile.entries if entry.fit.target is not None)
    size = f", adapters of {' or '.join(budgets)}" if budgets else ""
    weights = " with random weights" if profile.random_weights else ""
    return (
        f"the model {profile.model.label}{weights} ({profile.base_parameters:,} parameters) in {profile.dtype} on a "
        f"{profile.device_label}{size}"
    )


def _workload(profile: Profile) -> str:
    """The work that was measured, in three sentences."""
    load = profile.load
    again = ", layers computed again in the backward pass" if profile.checkpointing else ""
    return (
        f"Training: steps of {counted(load.batch, 'text')} of {load.prompt_tokens} tokens{again}. Prompt: "
        f"{load.prompt_tokens} tokens, {load.streams} at a time, to the scores of the next token. Decoding: "
        f"{load.new_tokens} tokens, greedily, with the cache of keys and values."
    )


def _table(profile: Profile, entries: Sequence[Entry]) -> Table:
    _, name = profile.flop_unit
    reference = profile.entry(profile.reference)
    times_reference = f"× {reference.recipe.title}" if reference else "×"
    decoding = any(entry.decode_memory for entry in entries)
    notes = (
        f"{_workload(profile)} Figures are medians; beside a quotient stand its lowest and highest value of a round.",
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
        *(Column(title, group="Training") for title in ("tokens/s", times_reference, "MiB")),
        *(Column(title, group="Prompt") for title in ("ms", "× base")),
        *(Column(title, group="Decoding") for title in ("tokens/s", "× base", *(["MiB"] if decoding else []))),
    ]
    return Table(
        "profile",
        f"Cost of {_measured_model(profile)}. ×: time {against(profile)}, within a round.",
        tuple(columns),
        tuple(_line(profile, entry, decoding) for entry in entries),
        pd.DataFrame([_numbers(profile, entry) for entry in entries]).astype(dict.fromkeys(_WHOLE, "Int64")),
        notes,
        wide=True,
    )


def _line(profile: Profile, entry: Entry, decoding: bool) -> Line:
    """The row of an entry; ``decoding``: with the memory of decoding."""
    unit, _ = profile.flop_unit
    train, decode = profile.rate(entry, "train"), profile.rate(entry, "decode")
    cells = [
        Cell(entry.recipe.title),
        *(Cell(count(value)) for value in (entry.fit.trainable, entry.active, entry.stored)),
        Cell(f"{entry.flops.forward / unit:,.2f}"),
        Cell(MISSING if entry.flops.step is None else f"{entry.flops.step / unit:,.2f}"),
        Cell(f"{train.median:,.0f}" if train else MISSING),
        _ratio(profile, entry, "train"),
        Cell(_mib(entry.train_memory)),
        Cell(digits(1e3 * median(entry.prompt))),
        _ratio(profile, entry, "prompt"),
        Cell(digits(decode.median) if decode else MISSING),
        _ratio(profile, entry, "decode"),
        *([Cell(_mib(entry.decode_memory))] if decoding else []),
    ]
    return Line(tuple(cells))


def _ratio(profile: Profile, entry: Entry, phase: Phase) -> Cell:
    """Relative time, and beside it its lowest and highest value of a round."""
    ratio = profile.relative(entry, phase)
    return Cell(f"{ratio.median:.2f}", f"{ratio.low:.2f}–{ratio.high:.2f}") if ratio else Cell(MISSING)


def _mib(values: Sequence[int]) -> str:
    """The median of sizes in bytes, in MiB."""
    return f"{median(values) / 2**20:,.0f}" if values else MISSING


def _agreement(profile: Profile) -> str:
    """How far the counted FLOPs are from those of the formula, as the end of a clause."""
    if profile.gap is None:
        return ""
    unknown = [entry.recipe.title for entry in profile.entries if entry.flops.forward_formula is None]
    exception = f" (there is none for {named(unknown)})" if unknown else ""
    if not profile.gap:
        return f"; they equal those of the formula of flops.py{exception}"
    return f"; they differ from those of the formula of flops.py by {100 * profile.gap:.2g} % at most{exception}"


def _noise(entries: Sequence[Entry]) -> list[str]:
    """The note on what tells the noise: a method that leaves the model's work as it is; none without such a method."""
    same = [entry.recipe.title for entry in entries if entry.fit.trainable == entry.fit.total]
    return [f"{named(same)} answers by the same work as the base: how far it is from 1 is noise."] if same else []


_WHOLE = ("trainable_parameters", "active_parameters", "stored_parameters")  # columns of whole numbers


def _numbers(profile: Profile, entry: Entry) -> dict[str, Any]:
    """A line of the CSV: sizes, and of what is measured the median, lowest and highest value over the rounds."""
    numbers: dict[str, Any] = {
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
    measured: dict[str, Spread | None] = {
        "train_tokens_per_second": profile.rate(entry, "train"),
        "train_time_relative": profile.relative(entry, "train"),
        "train_peak_mib": spread([value / 2**20 for value in entry.train_memory]),
        "prompt_ms": spread([1e3 * value for value in entry.prompt]),
        "prompt_time_relative": profile.relative(entry, "prompt"),
        "decode_tokens_per_second": profile.rate(entry, "decode"),
        "decode_time_relative": profile.relative(entry, "decode"),
        "decode_peak_mib": spread([value / 2**20 for value in entry.decode_memory]),
    }
    for name, values in measured.items():
        for part in Spread._fields:
            numbers[f"{name}_{part}"] = getattr(values, part) if values else None
    return numbers
