"""ROUGE of a generated summary, for dialogsum.yaml."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL", "rouge1", "rouge2"], use_stemmer=True)


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """F-measures between 0 and 1, with stemming."""
    scores = _scorer().score(doc["summary"], results[0])
    return {name: score.fmeasure for name, score in scores.items()}
