"""lm-eval on the live model: its tasks and metrics, as the metrics and item outcomes of a record."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from lm_eval.evaluator import evaluate as lm_evaluate

from mosld_bench.inputs.items import sample
from mosld_bench.inputs.tasks import chance, primary_metric
from mosld_bench.records.record import EvalInfo, Metric
from mosld_bench.spec.trial import Domain
from mosld_bench.trial.packed_lm import PackedLM

if TYPE_CHECKING:
    import pandas as pd

_BOOTSTRAP_SEED = 1234
_BOOTSTRAP_ITERATIONS = 1000
_MOST_CHARACTERS = 2000  # of a generated answer that is kept


class Evaluation(NamedTuple):
    """What scoring a model came to.

    ``items`` has a row per task and item: ``task, item, doc, doc_hash, prediction, target, correct, score, logliks``.
    """

    metrics: list[Metric]
    items: pd.DataFrame
    info: EvalInfo


def evaluate(
    lm: PackedLM,
    tasks: Mapping[str, Any],
    domains: Mapping[str, Domain],
    *,
    limit: int | None,
    sample_seed: int,
) -> Evaluation:
    """Score ``tasks`` (name -> lm-eval task) with lm-eval: all their items, or ``limit`` drawn with ``sample_seed``.

    ``domains``: task -> the part that it plays in the study. Raises FloatingPointError where the primary metric of a
    task is no number.
    """
    import pandas as pd

    started = time.perf_counter()
    indices = {name: sample(task, limit, sample_seed) for name, task in tasks.items()}
    with _same_random_state():
        random.seed(_BOOTSTRAP_SEED)
        np.random.seed(_BOOTSTRAP_SEED)
        results = lm_evaluate(
            lm, {"tasks": dict(tasks)}, samples=indices, bootstrap_iters=_BOOTSTRAP_ITERATIONS, log_samples=True
        )
    metrics: list[Metric] = []
    frames: list[pd.DataFrame] = []
    for name, task in tasks.items():
        metrics += _metrics(name, task, results["results"][name], domain=domains[name], indices=indices[name])
        frames.append(_item_rows(name, task, results["samples"][name]))
    info = EvalInfo(
        seconds=time.perf_counter() - started,
        requests=lm.work.requests,
        tokens_plain=lm.work.plain,
        tokens_computed=lm.work.computed,
        packed=lm.packed,
        cut_items=lm.cut_items,
        generated_with_cache=lm.writer.cached,
    )
    return Evaluation(metrics, pd.concat(frames, ignore_index=True), info)


@contextmanager
def _same_random_state() -> Iterator[None]:
    """lm-eval's few-shot samplers and bootstraps draw from the global generators; a trial's own draws must not move."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _metrics(
    name: str, task: Any, results: Mapping[str, Any], *, domain: Domain, indices: Sequence[int]
) -> list[Metric]:
    """The metrics of one task, from lm-eval's ``results`` (``metric,filter`` -> value) on its items at ``indices``."""
    primary, better = primary_metric(task), task.higher_is_better()
    guess = chance(task, (task.eval_docs[index] for index in indices))
    metrics: list[Metric] = []
    for key, value in results.items():
        metric, _, filtered = key.partition(",")
        if not filtered or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        if not math.isfinite(value):
            if key == primary:
                raise FloatingPointError(f"The task {name!r} comes to {value} under its primary metric {key}.")
            continue
        stderr = results.get(f"{metric}_stderr,{filtered}")
        metrics.append(
            Metric(
                task=name, role=domain, metric=key, value=float(value),
                stderr=float(stderr) if isinstance(stderr, int | float) and stderr == stderr else None,
                items=len(indices), chance=guess if metric in {"acc", "acc_norm"} else None,
                primary=key == primary, higher_is_better=bool(better.get(metric, True)),
            )
        )  # fmt: skip
    return metrics


def _item_rows(name: str, task: Any, samples: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Per-item outcomes of one task under its primary metric, from lm-eval's ``samples``."""
    import pandas as pd

    metric, _, chosen_filter = primary_metric(task).partition(",")
    choice = task.OUTPUT_TYPE == "multiple_choice"
    rows = []
    for entry in samples:
        if entry["filter"] != chosen_filter:
            continue
        doc = entry["doc"]
        item = next((doc[key] for key in ("id", "idx", "qid") if isinstance(doc.get(key), str | int)), entry["doc_id"])
        values = [float(response[0]) for response in entry["filtered_resps"]] if choice else []
        answer = str(int(np.argmax(values))) if values else str(entry["filtered_resps"][0])[:_MOST_CHARACTERS]
        score = entry.get(metric)
        rows.append(
            {
                "task": name,
                "item": str(item),
                "doc": int(entry["doc_id"]),
                "doc_hash": entry["doc_hash"][:16],
                "prediction": answer,
                "target": str(entry["target"])[:_MOST_CHARACTERS],
                "score": float(score) if isinstance(score, int | float) else None,
                "correct": bool(score == 1) if choice else None,
                "logliks": np.asarray(values, dtype=np.float32),
            }
        )
    return pd.DataFrame(rows)
