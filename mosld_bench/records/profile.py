"""A profile: what each recipe costs to train and to run, measured side by side (`mosld-bench profile STUDY`).

`results/STUDY/profile.json` holds it, and nothing here needs torch: `measure.py` measures, `profile_section.py` tells.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mosld_bench.cost.memory import ANSWER_SHARE
from mosld_bench.errors import BadFileError, BenchError
from mosld_bench.records.record import replace_file
from mosld_bench.report.table import short_count
from mosld_bench.spec.budget import Budget
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import Fit, ModelSpec
from mosld_bench.spec.yaml_file import Strict

#: What is timed. Seconds of one training step, of one prompt, of one decoded token (of every stream at once).
Timed = Literal["train", "prompt", "decode"]


class Load(Strict):
    """What every recipe is given to do."""

    batch: int = Field(8, gt=0, description="texts of a training step")
    streams: int = Field(1, gt=0, description="prompts that are answered side by side")
    prompt_tokens: int = Field(64, gt=0, description="tokens of a prompt, and of a text of a training step")
    answer_tokens: int = Field(8, gt=0, description="of a text of a training step: those that the loss is taken over")
    new_tokens: int = Field(32, gt=0, description="tokens decoded one by one, after the one that the prompt gives")
    rounds: int = Field(5, gt=0, description="in each, every recipe is measured once in turn")

    @classmethod
    def of(cls, **given: int) -> Load:
        """The load given on the command line, an eighth of a text its answer. Raises BenchError for what is below 1."""
        low = next((name for name, value in given.items() if value < 1), None)
        if low is not None:
            raise BenchError(f"--{low.replace('_', '-')} takes 1 or more; given: {given[low]}.")
        return cls(answer_tokens=max(1, round(ANSWER_SHARE * given["prompt_tokens"])), **given)


class Flops(Strict):
    """FLOPs a token, by torch's counter and by the formula of `flops.py`; None where there is none."""

    forward: float = Field(description="of a prompt, the output head at every token")
    forward_formula: float | None
    step: float | None = Field(description="of a training step; None for what does not train")
    step_formula: float | None

    def gaps(self) -> list[float]:
        """Relative differences between counter and formula, where there are both."""
        pairs = ((self.forward, self.forward_formula), (self.step, self.step_formula))
        return [abs(rule / counted - 1) for counted, rule in pairs if counted is not None and rule is not None]


class Entry(Strict):
    """One recipe. Of what is measured, one value a round."""

    recipe: Recipe
    budget: Budget
    fit: Fit = Field(description="its trainable parameters among others")
    active: int = Field(description="of the trained parameters, those that enter the output of one token")
    stored: int = Field(description="numbers that a saved adapter holds; of full fine-tuning, the whole model")
    flops: Flops
    train: tuple[float, ...] = Field((), description="seconds a training step; empty for what does not train")
    prompt: tuple[float, ...] = Field(description="seconds from the prompt to the scores of its next token")
    decode: tuple[float, ...] = Field(description="seconds a token after the first, of every stream at once")
    train_memory: tuple[int, ...] = Field((), description="peak bytes of a training step; see Profile.memory_note")
    decode_memory: tuple[int, ...] = Field((), description="peak bytes of prompt and decoding; on a GPU only")


class Spread(NamedTuple):
    """Over the rounds."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread | None:
    return Spread(median(values), min(values), max(values)) if values else None


class Profile(Strict):
    """What `mosld-bench profile` leaves."""

    schema_version: int = 1
    study: str
    model: ModelSpec
    random_weights: bool
    base_parameters: int
    dtype: str
    device: Literal["cpu", "cuda"]
    checkpointing: bool = Field(description="whether training steps computed layers again instead of keeping them")
    reference: str = Field(description="the recipe that training is compared with; the frozen base does not train")
    load: Load
    entries: tuple[Entry, ...] = Field(min_length=1, description="the frozen base first")
    meta_info: dict[str, Any] = Field(description="see provenance.meta_info")

    def entry(self, name: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.recipe.name == name), None)

    def relative(self, entry: Entry, what: Timed) -> Spread | None:
        """Time against the frozen base, of training against the reference: quotients within a round.

        None where there is nothing to compare: a quotient of medians would mix rounds that the machine treated
        differently.
        """
        other = self.entry(self.reference) if what == "train" else self.entries[0]
        if other is None or other is entry:
            return None
        pairs = zip(getattr(entry, what), getattr(other, what), strict=False)
        return spread([own / base for own, base in pairs])

    def rate(self, entry: Entry, what: Timed) -> Spread | None:
        """Tokens a second: trained, read of a prompt, or decoded."""
        load = self.load
        tokens = {"train": load.batch * load.prompt_tokens, "prompt": load.streams * load.prompt_tokens,
                  "decode": load.streams}[what]  # fmt: skip
        return spread([tokens / seconds for seconds in getattr(entry, what)])

    @property
    def memory_note(self) -> str:
        """What peak memory is here."""
        if self.device == "cpu":
            return "growth of the process's resident memory over that of the built model, during training steps"
        return "most bytes that torch had allocated on the GPU, weights included"

    @property
    def gap(self) -> float | None:
        """The largest relative difference between the counted and the calculated FLOPs."""
        return max((gap for entry in self.entries for gap in entry.flops.gaps()), default=None)


def save(path: Path, profile: Profile) -> None:
    """Write ``profile``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, profile.model_dump_json(indent=1).encode())


def load(path: Path) -> Profile:
    """What `save` wrote. Raises BadFileError for a file that is something else."""
    try:
        return Profile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise BadFileError(
            f"{path} holds no profile ({type(error).__name__}). Remove it, or measure again with mosld-bench profile."
        ) from error


def table(profile: Profile, width: int = 160) -> Table:
    """One line a recipe. Where ``width`` characters do not hold all: short counts, then no ranges and fewer columns."""
    for counts, few in ((False, False), (True, False)):
        shown = _table(profile, counts, few)
        if Console(width=1000).measure(shown).maximum <= width:
            return shown
    return _table(profile, True, True)


def _table(profile: Profile, counts: bool, few: bool) -> Table:
    """``counts``: short ones; ``few``: columns, and no ranges."""
    kind = "random weights, " if profile.random_weights else ""
    shown = Table(
        title=f"{profile.study}: {profile.model.name}, {kind}{profile.dtype} on {profile.device}",
        box=None if few else SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    columns = [(title, list(map(cell, profile.entries))) for title, cell in _columns(profile, counts, few)]
    columns = [(title, cells) for title, cells in columns if any(cells)]
    for title, _ in columns:
        shown.add_column(title, justify="left" if title == "recipe" else "right", no_wrap=True)
    for cells in zip(*(cells for _, cells in columns), strict=True):
        shown.add_row(*cells)
    return shown


def _columns(profile: Profile, counts: bool, few: bool) -> list[tuple[str, Callable[[Entry], str]]]:
    unit, name = flop_unit(profile)

    def count(value: int) -> str:
        return short_count(value) if counts else f"{value:,}"

    def rate(what: Timed) -> Callable[[Entry], str]:
        return lambda entry: digits(found.median) if (found := profile.rate(entry, what)) else ""

    def times(what: Timed) -> Callable[[Entry], str]:
        def cell(entry: Entry) -> str:
            found = profile.relative(entry, what)
            if not found:
                return ""
            return f"{found.median:.2f}" + ("" if few else f" ({found.low:.2f}–{found.high:.2f})")

        return cell

    def mib(values: Sequence[int]) -> str:
        return f"{median(values) / 2**20:,.0f}" if values else ""

    def step(entry: Entry) -> str:
        return f"{entry.flops.step / unit:,.2f}" if entry.flops.step is not None else ""

    columns: list[tuple[str, bool, Callable[[Entry], str]]] = [
        ("recipe", True, lambda entry: entry.recipe.name),
        ("trainable", False, lambda entry: count(entry.fit.trainable)),
        ("active", True, lambda entry: count(entry.active)),
        ("stored", False, lambda entry: count(entry.stored)),
        (name, True, lambda entry: f"{entry.flops.forward / unit:,.2f}"),
        ("training", False, step),
        ("train/s", True, rate("train")),
        (f"×{profile.reference}", True, times("train")),
        ("MiB", True, lambda entry: mib(entry.train_memory)),
        ("prompt ms", True, lambda entry: digits(1e3 * median(entry.prompt))),
        ("×base", True, times("prompt")),
        ("decode/s", True, rate("decode")),
        ("×base", True, times("decode")),
        ("MiB decoding", False, lambda entry: mib(entry.decode_memory)),
    ]
    return [(title, cell) for title, always, cell in columns if always or not few]


def sentences(profile: Profile) -> list[str]:
    """How to read the table."""
    given, gap = profile.load, profile.gap
    said = [
        f"Medians over {given.rounds} rounds. FLOPs are a token's; train/s and decode/s are tokens a second; × is time "
        f"against the frozen base, in training against {profile.reference}, each within a round.",
        f"Training: {given.batch} texts of {given.prompt_tokens} tokens. Prompts: {given.prompt_tokens} tokens, "
        f"{given.streams} at a time, {given.new_tokens} tokens decoded after each. MiB: {profile.memory_note}.",
        "Active parameters enter one token's output. The FLOPs are those computed: they include the experts that a "
        "router did not pick.",
    ]
    return said if gap is None else [*said, f"Counted and calculated FLOPs differ by at most {gap:.2%}."]


def flop_unit(profile: Profile) -> tuple[float, str]:
    """A unit in which the FLOPs a token are short, and its name."""
    return (1e9, "GFLOP") if max(entry.flops.forward for entry in profile.entries) >= 1e9 else (1e6, "MFLOP")


def digits(value: float) -> str:
    """Three significant digits and no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
