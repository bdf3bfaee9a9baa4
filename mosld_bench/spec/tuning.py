"""tuning.yaml: what a search for a study's learning rates found, as `mosld-bench tune` writes it and a study reads it.

`spec/search.py` says how the search goes. The file has a digest of all that it says, which is checked whenever it is
read: a factor that somebody changed in it would be taken for one that was found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mosld_bench.errors import BadFileError
from mosld_bench.spec.budget import Budget
from mosld_bench.spec.trial import ModelSpec, Rate, TrainSpec, digest
from mosld_bench.spec.yaml_file import Strict, parse, read_yaml

#: What a study calls its file by convention: beside study.yaml.
TUNING_FILE = "tuning.yaml"


class RateSource(StrEnum):
    """Who says at which factor on the study's learning rate a recipe trains."""

    SEARCH = "search"
    HAND = "hand"
    RECIPE = "recipe"

    @property
    def label(self) -> str:
        """Within a sentence."""
        return {
            RateSource.SEARCH: "found by a search",
            RateSource.HAND: "written by hand in the study",
            RateSource.RECIPE: "the recipe's own",
        }[self]


class Run(Strict):
    """One run of a search: a recipe at one factor with one seed."""

    trial: str = Field(description="id of its trial, whose record it is taken from")
    factor: float = Field(gt=0, description="on the study's learning rate")
    seed: int
    ended: Literal["finished", "stopped", "diverged"]
    steps: int = Field(description="that it took")
    at: tuple[int, ...] = Field(description="steps after which the validation loss was taken")
    losses: tuple[float, ...] = Field(description="the validation loss then, nats an answer token")
    rivals: tuple[float, ...] = Field(
        (), description="of a stopped run, the losses of other factors that the last of its losses was held against"
    )
    score: float | None = Field(
        None, description="of a finished run, mean over tasks of the score on the held-out items, lm-eval's number"
    )

    @property
    def loss(self) -> float | None:
        """Validation loss at the end of training, nats an answer token; None of a run that did not come to it."""
        return self.losses[-1] if self.ended == "finished" else None


class TunedRecipe(Strict):
    """What the search found for one recipe. A factor counts where the runs of all its seeds finished."""

    recipe: str = Field(description="digest of what the recipe is, its learning rate left out")
    chosen: float = Field(gt=0, description="the factor with the lowest mean loss over seeds")
    runner_up: float | None = Field(None, description="the next one; none where no other factor counts")
    margin: float | None = Field(None, description="mean loss at the runner-up minus that at the chosen one, nats")
    by_score: float | None = Field(
        None, description="the factor with the best mean score; none where tasks have no mean score"
    )
    at_edge: bool = Field(False, description="whether no factor beyond the chosen one was tried on one of its sides")
    runs: tuple[Run, ...] = Field(description="every run, by factor and seed")

    @property
    def agrees(self) -> bool | None:
        """Whether loss and score choose the same factor; None where there is no score."""
        return None if self.by_score is None else self.by_score == self.chosen

    def factor(self, rate: Rate) -> float | None:
        """The chosen factor or the runner-up."""
        return self.chosen if rate == "chosen" else self.runner_up

    def means(self) -> dict[float, float]:
        """Factor -> mean over seeds of the loss at the end, nats an answer token, of the factors that count."""
        return _means(self.runs, {run.trial: run.loss for run in self.runs})

    def scores(self) -> dict[float, float]:
        """Factor -> mean over seeds of the score, of the factors that count and have one with every seed."""
        return _means(self.runs, {run.trial: run.score if run.loss is not None else None for run in self.runs})


def _means(runs: tuple[Run, ...], values: Mapping[str, float | None]) -> dict[float, float]:
    means: dict[float, float] = {}
    for factor in dict.fromkeys(run.factor for run in runs):
        of_factor = [values[run.trial] for run in runs if run.factor == factor]
        known = [value for value in of_factor if value is not None]
        if len(known) == len(of_factor):
            means[factor] = sum(known) / len(known)
    return means


class Tuning(Strict):
    """What a search found, and under what: plain data, equal for equal records."""

    study: str = Field(description="the study whose learning rates were searched for")
    results: str = Field(description="the folder of results/ with the records of all runs")
    digest: str = Field(description="of all else in this file")
    protocol: str = Field(description="digest of what all runs share")
    model: ModelSpec
    budget: Budget
    in_domain: dict[str, str] = Field(description="task -> digest of its definition")
    train: TrainSpec
    seeds: tuple[int, ...]
    waves: tuple[tuple[float, ...], ...] = Field(
        description="factors that ran at a time; a run is held against those of earlier waves"
    )
    steps: int = Field(description="of a run that is not stopped")
    noise: float | None = Field(
        description="standard error of the difference of two factors' mean losses, nats; none where two factors count "
        "of no recipe"
    )
    degrees_of_freedom: int = Field(description="of the noise")
    higher_is_better: bool = Field(True, description="whether a larger score is a better one")
    recipes: dict[str, TunedRecipe]

    @classmethod
    def of(cls, **content: Any) -> Tuning:
        """With its digest; ``content``: all other fields."""
        unsigned = cls.model_construct(digest="", **content).model_dump(mode="json", exclude_defaults=True)
        return cls(digest=_content_digest(unsigned), **content)

    @property
    def factors(self) -> tuple[float, ...]:
        """The grid: every factor that was tried, rising."""
        return tuple(sorted(factor for wave in self.waves for factor in wave))

    def separated(self, recipe: str) -> bool | None:
        """Whether the recipe's margin is above the noise of a pair; None where either is not known."""
        margin = self.recipes[recipe].margin
        return None if margin is None or self.noise is None else margin > self.noise

    def check(self, where: Path | str) -> None:
        """Raises BadFileError, which names ``where`` it was read, if it was changed since the search wrote it."""
        if self.digest != _content_digest(self.model_dump(mode="json", exclude_defaults=True)):
            raise BadFileError(
                f"{where} was changed after the search wrote it: its digest is not that of what it says. Write factors "
                f"of your own in learning_rate_scales of the study, or let `mosld-bench tune` write the file again."
            )

    def text(self) -> str:
        """The content of the file, a line a run."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        recipes = content.pop("recipes")
        lines = [
            f"# Written by `mosld-bench tune {self.study}`; the study takes it in by the key `tuning: {TUNING_FILE}`.",
            *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()),
            "recipes:",
        ]
        for name, found in recipes.items():
            runs = found.pop("runs")
            lines.append(f"  {json.dumps(name, ensure_ascii=False)}:")
            lines += [f"    {key}: {json.dumps(value)}" for key, value in found.items()]
            lines.append("    runs:")
            lines += [f"      - {json.dumps(run, ensure_ascii=False)}" for run in runs]
        return "\n".join(lines) + "\n"


def _content_digest(content: Mapping[str, Any]) -> str:
    return digest({key: value for key, value in content.items() if key != "digest"})


def read_tuning(path: Path) -> Tuning:
    """The search in a file. Raises BadFileError where there is none, or it was changed since it was written."""
    if not path.is_file():
        raise BadFileError(
            f"{path} is not there, which the study takes its learning rates from (tuning). `mosld-bench tune STUDY` "
            f"makes it; without the key every recipe trains at its own."
        )
    tuning = parse(Tuning, path, read_yaml(path))
    tuning.check(path)
    return tuning
