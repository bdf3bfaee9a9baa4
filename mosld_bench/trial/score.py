"""Scoring a model or an adapter that no trial has trained, as trials are scored: the same items, packed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosld_bench.compat.bitsandbytes import numbers_of
from mosld_bench.errors import BenchError, ModelError, RoundingError, first_line
from mosld_bench.format import listed
from mosld_bench.inputs.adapter import AdapterFolder, check_base
from mosld_bench.methods.peft_types import why_not_rounded
from mosld_bench.records.provenance import meta_info, now
from mosld_bench.records.scored import Scored, ScoredAdapter, ScoredOutcome, ScoredParameters, scored_id
from mosld_bench.spec.expand import identified
from mosld_bench.spec.trial import Domain, EvaluateSpec, ModelSpec
from mosld_bench.trial.session import Session

if TYPE_CHECKING:
    from torch import nn

    from mosld_bench.compat.peft_folder import LoadedAdapter
    from mosld_bench.trial.scoring import Evaluation


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What is to be scored, on what: all that changes the numbers, and the study that it lies under.

    ``adapter``: None scores the model itself. ``title``: what reports call it.
    """

    study: str
    title: str
    model: ModelSpec
    adapter: AdapterFolder | None
    tasks: tuple[str, ...]
    evaluate: EvaluateSpec
    dtype: str


def check_scoring(scoring: Scoring, session: Session) -> list[str]:
    """Make sure that there is what is to be scored, before any weights are loaded. Downloads what is missing.

    Returns what cannot be told of it, in sentences. Raises UnknownNameError for a task that is not there, DataError for
    one whose items cannot be used, and ModelError for a model without weights and an adapter of another model.
    """
    from mosld_bench.inputs.audit import Use, Vocabulary, audit, refuse
    from mosld_bench.inputs.audit_cache import AuditCache
    from mosld_bench.inputs.models import ensure_weights, load_config, load_tokenizer

    root, model = session.model_root, scoring.model
    session.tasks.check_names(scoring.tasks)
    notes: list[str] = []
    if scoring.adapter:
        notes += [doubt] if (doubt := check_base(scoring.adapter, model, root)) else []
        notes += _passed_over(scoring.adapter)
        _refuse_rounded(scoring.adapter, model, scoring.dtype)
    ensure_weights(model, root)
    positions = getattr(load_config(model, root), "max_position_embeddings", None)
    vocabulary = Vocabulary(model.name, load_tokenizer(model, root), positions if isinstance(positions, int) else None)
    limit, seed = scoring.evaluate.limit, scoring.evaluate.sample_seed
    uses = [Use(task=task, role="scored", items=limit, seed=seed) for task in scoring.tasks]
    cache = AuditCache(lambda line: None)
    refuse(audit(session.tasks, uses, [vocabulary], known=cache.known, keep=cache.keep))
    return notes


def _passed_over(adapter: AdapterFolder) -> list[str]:
    """A sentence about settings of an adapter that PEFT does not know here, where there are some."""
    if not adapter.unknown:
        return []
    written = adapter.config.get("peft_version")
    by = f", and was written by PEFT {written}" if isinstance(written, str) else ""
    return [
        f"The adapter {adapter.place} has settings that PEFT {version('peft')} does not know and passes over "
        f"({listed(adapter.unknown, most=5)}){by}; numbers may not be those of whoever trained it."
    ]


def _refuse_rounded(adapter: AdapterFolder, model: ModelSpec, dtype: str) -> None:
    """Raise RoundingError where a method cannot be on the weights of ``model`` as they are rounded."""
    if model.load and (reason := why_not_rounded(adapter.peft_type, adapter.config, model.load, dtype)):
        raise RoundingError(
            f"The adapter {adapter.place} cannot be scored on {model.name!r} rounded to {model.load}: {reason}. Leave "
            f"the rounding out."
        )


def score(scoring: Scoring, session: Session, notes: list[str]) -> ScoredOutcome:
    """Load and score it, in this process; nothing is written. ``notes``: what `check_scoring` gave.

    Raises ModelError for an adapter that does not fit the model, and for a model whose log-likelihoods are no
    numbers.
    """
    from mosld_bench.compat.torch import bfloat16_products
    from mosld_bench.inputs.models import weights_source
    from mosld_bench.methods.stages import to_devices_of

    started, clock = now(), time.perf_counter()
    adapter, base = _described(scoring.adapter), session.model(scoring.model, scoring.dtype)
    loaded = with_adapter(base.model, scoring.adapter, scoring.model.name) if scoring.adapter else None
    model = to_devices_of(loaded.model, base.model) if loaded else base.model
    model.requires_grad_(False).eval()
    tasks = {name: session.scored(name) for name in scoring.tasks}
    try:
        with bfloat16_products(scoring.dtype, session.config.device):
            evaluation = _evaluate(model, base.tokenizer, tasks, scoring, session)
    except FloatingPointError as error:
        raise ModelError(f"{scoring.title} cannot be scored in {scoring.dtype}. {error}") from error
    identity = identified(scoring.model)
    digests = {task: session.tasks.files.digest(task) for task in scoring.tasks}
    record = Scored(
        scored_id=scored_id(identity, adapter, digests, scoring.evaluate, scoring.dtype),
        study=scoring.study,
        title=scoring.title,
        model=identity,
        adapter=adapter,
        tasks=scoring.tasks,
        task_digests=digests,
        evaluate=scoring.evaluate,
        dtype=scoring.dtype,
        parameters=_parameters(model, loaded),
        eval_info=evaluation.info,
        metrics=tuple(evaluation.metrics),
        notes=tuple(notes),
        meta_info={
            **meta_info(
                started,
                time.perf_counter() - clock,
                session.config.device,
                session.config.command,
                load=scoring.model.load,
            ),
            "weights": weights_source(scoring.model, session.model_root),
        },
    )
    return ScoredOutcome(record, evaluation.items)


def _evaluate(
    model: nn.Module, tokenizer: Any, tasks: Mapping[str, Any], scoring: Scoring, session: Session
) -> Evaluation:
    from mosld_bench.trial.packed_lm import PackedLM
    from mosld_bench.trial.scoring import evaluate

    resources = session.config.resources
    lm = PackedLM(model, tokenizer, tokens=resources.score_tokens, width=resources.score_width, tasks=tasks)
    limit, seed = scoring.evaluate.limit, scoring.evaluate.sample_seed
    return evaluate(lm, tasks, dict.fromkeys(tasks, Domain.OUT), limit=limit, sample_seed=seed)


def with_adapter(base: nn.Module, adapter: AdapterFolder, model: str) -> LoadedAdapter:
    """A copy of ``base``, which errors call ``model``, with the adapter on it; the two share the base weights.

    Raises ModelError for an adapter that does not fit, or asks for what is not in its file.
    """
    from mosld_bench.compat.peft_folder import load_adapter, oversize
    from mosld_bench.methods.live import copy_sharing_weights, own_if_written
    from mosld_bench.methods.matching import refuse_endless

    refusal = f"The adapter {adapter.place} ({adapter.peft_type}) does not fit the model {model!r}"
    advice = f"It names {adapter.base!r} as its base model." if adapter.base else "It names no base model."
    refuse_endless(base, adapter.config, f"the configuration of the adapter {adapter.place}")
    if reason := oversize(base, adapter.folder):
        raise ModelError(f"{refusal}: {reason}. {advice}")
    try:
        with own_if_written(base):  # PiSSA and OLoRA take their start out of the base weights
            loaded = load_adapter(copy_sharing_weights(base), adapter.folder)
    except BenchError:
        raise
    except Exception as error:  # of PEFT, safetensors or a tuner: a shape, a module that is not there, a damaged file
        raise ModelError(f"{refusal} ({type(error).__name__}: {first_line(error)}). {advice}") from error
    if loaded.misfit:
        raise ModelError(f"{refusal}: {loaded.misfit}. {advice}")
    return loaded


def _parameters(model: nn.Module, loaded: LoadedAdapter | None) -> ScoredParameters:
    total = sum(map(numbers_of, model.parameters()))
    if loaded is None:
        return ScoredParameters(trainable=None, stored=None, total=total)
    return ScoredParameters(trainable=loaded.trainable, stored=loaded.stored, total=total)


def _described(adapter: AdapterFolder | None) -> ScoredAdapter | None:
    if adapter is None:
        return None
    base = adapter.base
    return ScoredAdapter(
        name=adapter.name,
        peft_type=adapter.peft_type,
        base_model=Path(base).name if base and Path(base).is_absolute() else base,  # where it lay says nothing here
        sha256=adapter.sha256,
        config_sha256=adapter.config_sha256,
    )


def results_table(record: Scored, session: Session) -> str:
    """The numbers as lm-eval prints them, with the standard errors of the record."""
    from lm_eval.utils import make_table

    tasks = {name: session.tasks.get(name) for name in record.tasks}
    results: dict[str, dict[str, Any]] = {name: {"alias": name} for name in tasks}
    for metric in record.metrics:
        name, _, filtered = metric.metric.partition(",")
        results[metric.task] |= {metric.metric: metric.value, f"{name}_stderr,{filtered}": _or_none(metric.stderr)}
    return str(
        make_table(
            {
                "results": results,
                "versions": {name: task.VERSION for name, task in tasks.items()},
                "n-shot": {name: task.config.num_fewshot or 0 for name, task in tasks.items()},
                "higher_is_better": {name: task.higher_is_better() for name, task in tasks.items()},
            }
        )
    )


def _or_none(error: float | None) -> float | str:
    return "N/A" if error is None else error
