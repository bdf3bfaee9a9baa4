"""The result of a comparison for programs."""

from __future__ import annotations

import math
from typing import Any

from mosld_bench.reporting.comparing.items import ItemDifference
from mosld_bench.reporting.comparing.pairs import Member
from mosld_bench.reporting.comparing.result import Result
from mosld_bench.reporting.comparing.scores import Score
from mosld_bench.reporting.comparing.sides import Side
from mosld_bench.reporting.comparing.wording import words
from mosld_bench.reporting.labels import amounts


def as_json(result: Result) -> dict[str, Any]:
    """The whole result as JSON has it, at full precision; `reports/README.md` describes the keys."""
    return {
        "a": _side(result.ours),
        "b": _side(result.theirs),
        "margin": result.margin,
        "notes": list(result.notes),
        "pairs": [
            {
                "a": _member(compared.pair.ours),
                "b": _member(compared.pair.theirs),
                "not_the_same": [
                    {"field": field.name, "a": field.ours, "b": field.theirs, "effect": field.effect}
                    for field in compared.unlike
                ],
                "scores": [_score(score, result.margin) for score in compared.scores],
            }
            for compared in result.pairs
        ],
        "items": [_item(item) for item in result.items],
    }


def _side(side: Side) -> dict[str, Any]:
    return {"name": side.name, "kind": side.kind.value, "source": side.source.name}


def _member(member: Member) -> dict[str, Any]:
    row, trials = member.row, [record.trial for record in member.row.records]
    return {
        "recipe": row.recipe.name,
        "title": row.recipe.title,
        "setting": row.setting,
        "budget": row.budget,
        "model": trials[0].model.name,
        **amounts(row.condition),
        "trainable_parameters": row.trainable,
        "seeds": sorted({trial.seed for trial in trials}),
        "trials": [record.trial_id for record in row.records],
    }


def _score(score: Score, margin: float) -> dict[str, Any]:
    difference = score.difference
    return {
        "of": str(score.of),
        "domain": score.domain and score.domain.value,
        "title": score.title,
        "metric": score.metric,
        "primary": score.primary,
        "scale": score.scale.range.value,
        "higher_is_better": score.scale.higher_is_better,
        "a": _finite(score.ours),
        "b": _finite(score.theirs),
        "difference": _finite(difference.mean),
        "low": _finite(difference.low),
        "high": _finite(difference.high),
        "standard_error": _finite(difference.error),
        "degrees_of_freedom": _finite(difference.freedom),
        "p": _finite(difference.p),
        "adjusted_p": _finite(score.comparison.adjusted),
        "equal_p": _finite(score.comparison.equal_p),
        "detectable": _finite(score.detectable),
        "seed_noise": difference.basis.value,
        "item_noise": difference.of_items,
        "verdict": score.verdict.value,
        "within_margin": score.comparison.within,
        "identical": score.identical,
        "words": words(score, margin),
        "seeds": {"a": list(score.our_seeds), "b": list(score.their_seeds), "paired": score.same_seeds},
        "items": [
            {"task": overlap.task, "a": overlap.ours, "b": overlap.theirs, "common": overlap.common}
            | {"paired": overlap.paired and difference.of_items}
            for overlap in score.items
        ],
    }


def _item(item: ItemDifference) -> dict[str, Any]:
    return {
        "pair": item.place,
        "task": item.task,
        "doc": item.doc,
        "item": item.item,
        "metric": item.metric,
        "a": item.ours,
        "b": item.theirs,
        "a_predictions": list(item.our_predictions),
        "b_predictions": list(item.their_predictions),
        "target": item.target,
    }


def _finite(value: float | None) -> float | None:
    """JSON has no number for infinity."""
    return value if value is not None and math.isfinite(value) else None
