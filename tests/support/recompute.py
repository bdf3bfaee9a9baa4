"""The numbers of a record, made again of its items as `results/README.md` says how."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_FRACTION = 1e-6  # by which a log-likelihood that is kept in float32 moves a number


def recomputed(items: pd.DataFrame, metric: str) -> tuple[float, float]:
    """The number of a task under ``metric`` (lm-eval's name with its filter), and how exact it is (relative).

    ``items``: the rows of the task. Raises KeyError for a number that cannot be made of items.
    """
    if metric in items:
        values = [value for value in items[metric] if not math.isnan(value)]
        return sum(values) / len(values), 1e-12
    of_all = {
        "perplexity": _perplexity, "word_perplexity": _word_perplexity, "byte_perplexity": _byte_perplexity,
        "bits_per_byte": _bits_per_byte, "mcc": _mcc, "f1": _f1, "brier_score": _brier_score, "bleu": _bleu,
        "chrf": _chrf, "ter": _ter,
    }  # fmt: skip
    return of_all[metric.partition(",")[0]](items), _FRACTION


def one_by_one(items: pd.DataFrame) -> list[Any]:
    """The items one by one, their columns as attributes."""
    return list(items.itertuples())


def _logliks(items: pd.DataFrame) -> float:
    return float(sum(values[0] for values in items["logliks"]))


def _perplexity(items: pd.DataFrame) -> float:
    return math.exp(-_logliks(items) / len(items))


def _word_perplexity(items: pd.DataFrame) -> float:
    return math.exp(-_logliks(items) / items["words"].sum())


def _byte_perplexity(items: pd.DataFrame) -> float:
    return math.exp(-_logliks(items) / items["bytes"].sum())


def _bits_per_byte(items: pd.DataFrame) -> float:
    return -_logliks(items) / items["bytes"].sum() / math.log(2)


def _right_and_highest(items: pd.DataFrame) -> tuple[list[int], list[int]]:
    return [int(target) for target in items["target"]], [int(np.argmax(values)) for values in items["logliks"]]


def _mcc(items: pd.DataFrame) -> float:
    """Matthews' correlation of any number of classes (Gorodkin 2004)."""
    right, highest = _right_and_highest(items)
    count, classes = len(right), {*right, *highest}
    hits = sum(a == b for a, b in zip(right, highest, strict=True))
    both = sum(right.count(k) * highest.count(k) for k in classes)
    spread = [count**2 - sum(chosen.count(k) ** 2 for k in classes) for chosen in (right, highest)]
    return (hits * count - both) / math.sqrt(math.prod(spread))


def _f1(items: pd.DataFrame) -> float:
    """Of the second of two options."""
    right, highest = _right_and_highest(items)
    hits = sum(a == b == 1 for a, b in zip(right, highest, strict=True))
    return 2 * hits / (right.count(1) + highest.count(1))


def _brier_score(items: pd.DataFrame) -> float:
    errors = []
    for target, logliks in zip(items["target"], items["logliks"], strict=True):
        values = softmax(logliks)
        values[int(target)] -= 1
        errors.append(sum(value**2 for value in values))
    return sum(errors) / len(errors)


def _texts(items: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """What was written, and what is right as sacrebleu takes it."""
    return list(items["prediction"]), [list(items["target"])]


def _bleu(items: pd.DataFrame) -> float:
    import sacrebleu

    return float(sacrebleu.corpus_bleu(*_texts(items)).score)


def _chrf(items: pd.DataFrame) -> float:
    import sacrebleu

    return float(sacrebleu.corpus_chrf(*_texts(items)).score)


def _ter(items: pd.DataFrame) -> float:
    import sacrebleu

    return float(sacrebleu.corpus_ter(*_texts(items)).score)


def softmax(logliks: Any) -> list[float]:
    """In plain float64, one number after the other."""
    highest = max(float(value) for value in logliks)
    weights = [math.exp(float(value) - highest) for value in logliks]
    return [weight / math.fsum(weights) for weight in weights]


def right_options(target: str) -> list[int]:
    """The indices that a target names: of one option, or of several."""
    named = json.loads(target)
    return named if isinstance(named, list) else [named]


def probability(target: str, logliks: Any) -> float:
    """Of the right options together."""
    values = softmax(logliks)
    return math.fsum(values[index] for index in set(right_options(target)))
