"""Answers drawn from a model of known truth: rows trained from common seeds answer common items.

An item is right where a normal score is above a threshold. The score is the item's ease, plus what the row, the seed
and both do to the item, plus what a seed does to a row's whole level. `KEPT` gives MS, VI and VE of results/smollm2,
whose five tasks of 500 items and five methods are the default.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from mosld_bench.reporting import stats

Answers: TypeAlias = npt.NDArray[np.float64]  # rows × seeds × tasks × items, 0 or 1
LEVELS = (0.231, 0.490, 0.580, 0.630, 0.292)  # the share of right answers, task by task
TASKS, ITEMS, ROWS = len(LEVELS), 500, 5
_THRESHOLDS = np.asarray(norm.ppf(LEVELS), dtype=np.float64)
_POINT = 0.01 / float(np.mean(norm.pdf(_THRESHOLDS)))  # of normal score that moves the mean over tasks by a point


@dataclass(frozen=True)
class Noise:
    """Variances: of what acts on items as shares of the score's, 1 in all; of what acts on levels in points²."""

    row_item: float = 0.0012
    seed_item: float = 0.0237
    row_seed_item: float = 0.0120
    seed: float = 0.28
    row_seed: float = 0.0495


KEPT = Noise()
#: What a seed does is larger: to all rows alike, and to each.
LARGER_SHIFTS = replace(KEPT, seed=1.3, row_seed=0.2)
#: Rows answer more differently, so that other items would have given other differences.
UNLIKE_ANSWERS = replace(KEPT, row_item=0.041)


def answers(
    draw: np.random.Generator,
    noise: Noise,
    seeds: int,
    *,
    rows: int = ROWS,
    items: int = ITEMS,
    passage: int = 1,
    effect: float = 0.0,
    first_row_seed: float | None = None,
) -> Answers:
    """A study's answers. ``effect``: what the first row is better by, in points (`true_level` has it exactly).

    ``first_row_seed``: ``row_seed`` of the first row. ``passage``: how many items are about one; what acts on an item
    then acts by four fifths on its passage.
    """

    def on_items(variance: float, *shape: int) -> npt.NDArray[np.float32]:
        parts = draw.standard_normal((*shape, TASKS, items), dtype=np.float32)
        if passage > 1:
            shared = draw.standard_normal((*shape, TASKS, items // passage), dtype=np.float32)
            parts = parts * np.float32(0.2**0.5) + np.repeat(shared, passage, axis=-1) * np.float32(0.8**0.5)
        parts *= np.float32(variance**0.5)
        return parts

    ease = 1 - noise.row_item - noise.seed_item - noise.row_seed_item
    score = on_items(noise.row_seed_item, rows, seeds)
    score += on_items(noise.row_item, rows, 1)
    score += on_items(noise.seed_item, seeds) + on_items(ease)
    variances = np.full((rows, 1), noise.row_seed)
    variances[0] = noise.row_seed if first_row_seed is None else first_row_seed
    shifts = draw.standard_normal((rows, seeds)) * variances**0.5 + draw.standard_normal(seeds) * noise.seed**0.5
    shifts[0] += effect
    thresholds = -_THRESHOLDS[:, np.newaxis] - _POINT * shifts[..., np.newaxis, np.newaxis]
    right: npt.NDArray[np.bool_] = score > thresholds.astype(np.float32)
    return right.astype(np.float64)


def true_level(noise: Noise, better: float = 0.0, row_seed: float | None = None) -> float:
    """A row's mean over tasks, over all seeds and items that there might be; ``better``: by how many points."""
    shifts = noise.seed + (noise.row_seed if row_seed is None else row_seed)
    return float(np.mean(norm.cdf((_THRESHOLDS + better * _POINT) / (1 + shifts * _POINT**2) ** 0.5)))


def means(study: Answers) -> npt.NDArray[np.float64]:
    """Rows × seeds: the mean over tasks of the mean over items."""
    return np.asarray(study.mean(axis=(2, 3)))


def by_task(difference: npt.NDArray[np.float64], passage: int = 1) -> list[stats.TaskItems]:
    """A difference, seeds × tasks × items, task by task."""
    groups = None if passage == 1 else np.arange(difference.shape[2]) // passage
    return [stats.TaskItems(np.ascontiguousarray(difference[:, task]), groups) for task in range(difference.shape[1])]


def minus_first(study: Answers, *, guard: bool = True, passage: int = 1) -> list[stats.Estimate]:
    """Every other row minus the first, as `Evidence` has them estimated."""
    table = means(study)
    noise = stats.seed_noise(table)
    p_values = [stats.noisier(table, row) for row in range(len(study))] if guard else [None] * len(study)
    noisy = [p is not None and p < stats.LEVEL for p in p_values]
    return [
        stats.difference(
            (table[row] - table[0]).tolist(),
            by_task(study[row] - study[0], passage),
            noise,
            noisy=noisy[row] or noisy[0],
        )
        for row in range(1, len(study))
    ]
