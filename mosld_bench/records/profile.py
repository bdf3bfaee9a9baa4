"""A profile: what each recipe costs to train and to run, measured side by side (`mosld-bench profile STUDY`).

`results/STUDY/profile.json` holds it, and nothing here needs torch: `cost/measure.py` measures. Times are seconds,
memory is bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal, NamedTuple

from pydantic import Field

from mosld_bench.records.provenance import Noted
from mosld_bench.spec.budget import Budget
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import Fit, ModelSpec
from mosld_bench.spec.yaml_file import Strict

#: What is timed: one training step, one prompt, or one decoded token (of every stream at once).
Phase = Literal["train", "prompt", "decode"]


class Workload(Strict):
    """The work that every recipe is measured on."""

    batch: int = Field(8, gt=0, description="texts of a training step")
    streams: int = Field(1, gt=0, description="prompts that are answered side by side")
    prompt_tokens: int = Field(64, gt=0, description="tokens of a prompt, and of a text of a training step")
    answer_tokens: int = Field(8, gt=0, description="of a text of a training step: those that the loss is taken over")
    new_tokens: int = Field(32, gt=0, description="tokens decoded one by one, after the one that the prompt gives")
    rounds: int = Field(5, gt=0, description="in each, every recipe is measured once in turn")


class Flops(Strict):
    """FLOPs a token, by torch's counter and by the formula of `cost/flops.py`; None where there is none."""

    forward: float = Field(description="of a prompt, the output head at every token")
    forward_formula: float | None
    step: float | None = Field(description="of a training step; None for what does not train")
    step_formula: float | None

    def gaps(self) -> list[float]:
        """Relative differences between counter and formula, where there are both."""
        pairs = ((self.forward, self.forward_formula), (self.step, self.step_formula))
        return [abs(formula / counter - 1) for counter, formula in pairs if counter is not None and formula is not None]


class Entry(Strict):
    """One recipe: its sizes, and one value a round of everything that is measured."""

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
    """A measured quantity over the rounds: median, lowest and highest value."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread | None:
    """Median and range of ``values``; None for no values."""
    return Spread(median(values), min(values), max(values)) if values else None


class Profile(Strict):
    """What `mosld-bench profile` leaves: every recipe of a study on one machine, under one workload."""

    schema_version: int = 1
    study: str
    model: ModelSpec
    random_weights: bool
    base_parameters: int
    dtype: str
    device: Literal["cpu", "cuda"]
    checkpointing: bool = Field(description="whether training steps computed layers again instead of keeping them")
    reference: str = Field(description="the recipe that training is compared with; the frozen base does not train")
    load: Workload
    entries: tuple[Entry, ...] = Field(min_length=1, description="the frozen base first")
    meta_info: Noted = Field(description="see provenance.meta_info")

    def entry(self, name: str) -> Entry | None:
        """The entry of the recipe ``name``; None where it was not measured."""
        return next((entry for entry in self.entries if entry.recipe.name == name), None)

    def current(self, recipes: Iterable[Recipe]) -> list[Entry]:
        """The entries but for those of ``recipes`` that were changed since; the frozen base among them.

        Empty where nothing is left to compare with the base.
        """
        now = {recipe.name: recipe.identity for recipe in recipes}
        entries = [e for e in self.entries if now.get(e.recipe.name, e.recipe.identity) == e.recipe.identity]
        return entries if len(entries) > 1 else []

    def relative(self, entry: Entry, phase: Phase) -> Spread | None:
        """Time against the frozen base, of training against the reference: quotients within a round.

        None where there is nothing to compare. A quotient of medians would mix rounds that the machine treated
        differently.
        """
        other = self.entry(self.reference) if phase == "train" else self.entries[0]
        if other is None or other is entry:
            return None
        rounds = zip(getattr(entry, phase), getattr(other, phase), strict=False)  # empty for what does not train
        return spread([seconds / seconds_of_other for seconds, seconds_of_other in rounds])

    def rate(self, entry: Entry, phase: Phase) -> Spread | None:
        """Tokens a second: trained, read of a prompt, or decoded; None where the phase was not measured."""
        load = self.load
        tokens = {
            "train": load.batch * load.prompt_tokens,
            "prompt": load.streams * load.prompt_tokens,
            "decode": load.streams,
        }[phase]
        return spread([tokens / seconds for seconds in getattr(entry, phase)])

    @property
    def device_label(self) -> str:
        """As a sentence has it."""
        return {"cpu": "CPU", "cuda": "GPU"}[self.device]

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

    @property
    def flop_unit(self) -> tuple[float, str]:
        """A unit in which the FLOPs a token are short, and its name."""
        large = max(entry.flops.forward for entry in self.entries) >= 1e9
        return (1e9, "GFLOP") if large else (1e6, "MFLOP")
