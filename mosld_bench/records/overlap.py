"""What evaluation sets share with training sets, as `inputs/contamination.py` finds it and a report shows it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mosld_bench.spec.yaml_file import Strict

#: Words of the shortest run that counts as shared text; of a shorter item only an exact copy counts.
SHORTEST = 8


class Overlap(Strict):
    """What one evaluation set shares with one training set. A task with itself: its training with its test split."""

    train: str = Field(description="the task whose training set it is")
    evaluated: str = Field(description="the task whose evaluation set it is")
    n: int = Field(description="words of a run")
    train_items: int = Field(description="items of the training set")
    items: int = Field(description="evaluation items that are scored")
    shared: int = Field(description="evaluation items that share a run of n words with a training item, or are exact")
    exact: int = Field(description="evaluation items whose whole text is a training item's whole text")
    example: str = Field("", description="a shared run of the first item that has one")


class Overlaps(Strict):
    """The overlaps of a study under one choice of tasks and items; its overlap.json holds one or a list of them."""

    key: dict[str, Any] = Field(description="what they were computed from: while it stays the same, so do they")
    overlaps: tuple[Overlap, ...] = Field(description="every training set against every evaluation set")
