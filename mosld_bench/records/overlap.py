"""What evaluation sets share with training sets, as `inputs/contamination.py` finds it and a report shows it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mosld_bench.spec.yaml_file import Strict

SHORTEST = 8  # words; below, only an exact item counts


class Overlap(Strict):
    """What one evaluation set shares with one training set. A task with itself: its training with its test split."""

    train: str
    evaluated: str
    n: int = Field(description="words of a run")
    train_items: int
    items: int = Field(description="evaluation items that are scored")
    shared: int = Field(description="evaluation items that share a run of n words with a training item, or are exact")
    exact: int = Field(description="evaluation items whose whole text is a training item's whole text")
    example: str = Field("", description="a shared run of the first item that has one")


class Overlaps(Strict):
    """The overlaps of a study, and what they were computed from: as long as the key is the same, so are they."""

    key: dict[str, Any]
    overlaps: tuple[Overlap, ...]
