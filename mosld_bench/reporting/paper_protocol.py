"""Where the protocol of a study departs from the paper's, or fills what the paper leaves open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from mosld_bench.records.published import Protocol
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.spec.trial import TrainSpec

KNOWN_TO_ITEMS = 5  # what is held out is rounded, to whole passages where questions share one


class ProtocolDifference(NamedTuple):
    """A field, and what the paper and the study have there, in words."""

    field: str
    paper: str
    here: str


def protocol_differences(analysis: Analysis, protocol: Protocol) -> list[ProtocolDifference]:
    """The fields of the study, its optimiser, recipes and tasks that differ; none of a study without training."""
    spec = analysis.study.train
    if spec is None:
        return []
    differences = [
        *_study_fields(analysis, protocol, spec),
        *_open_fields(analysis, protocol),
        *_recipe_params(analysis, protocol),
        *_task_items(analysis, protocol, spec),
    ]
    return [ProtocolDifference(field, _short(paper), _short(ours)) for field, paper, ours in differences]


_Difference = tuple[str, Any, Any]  # as a `ProtocolDifference`, before it is put into words


def _study_fields(analysis: Analysis, protocol: Protocol, spec: TrainSpec) -> Iterator[_Difference]:
    """Keys of the study.yaml: of the paper's study, and of its tables that this study redoes."""
    wanted = dict(protocol.study)
    for name in analysis.study.published:
        wanted |= protocol.tables.get(name, {})
    wanted["models"] = [protocol.models[name] for name in wanted["models"]]
    study = analysis.study.model_dump(mode="json") | {"models": [model.name for model in analysis.study.models]}
    study |= {domain: [analysis.benchmark(task) for task in study[domain]] for domain in ("in_domain", "out_of_domain")}
    study["seeds"] = len(study["seeds"])
    for key, paper in wanted.items():
        field = key.removeprefix("train.")
        ours = study["train"][field] if key.startswith("train.") else study[key]
        if key == "train.epochs" and ours is None:
            ours = f"{spec.steps:,} steps"
        unordered = isinstance(ours, list) and isinstance(paper, list) and sorted(ours) == sorted(paper)
        if ours != paper and not unordered:
            yield field, paper, ours


def _open_fields(analysis: Analysis, protocol: Protocol) -> Iterator[_Difference]:
    """What a study.yaml has no key for and the paper does not say."""
    factored = any(row.recipe.optimizer == "adafactor" for row in analysis.trained)
    ours = {
        "optimizer": "AdamW" + ("; Adafactor where every weight trains" if factored else ""),
        "prompt": "the task definitions in tasks/",
        "answer_only_loss": "yes",
    }
    for model in analysis.study.models:
        if model.load:
            yield f"weights of {model.name}", None, f"rounded to {model.load}"
    for key, paper in protocol.other.items():
        if paper is None:
            yield key.replace("_", " "), None, ours[key]


def _recipe_params(analysis: Analysis, protocol: Protocol) -> Iterator[_Difference]:
    for recipe in analysis.recipes:
        wanted = (protocol.params if "r" in recipe.params else {}) | protocol.recipes.get(recipe.name, {})
        for key, paper in wanted.items():
            if recipe.params.get(key) != paper:
                yield f"{recipe.title}, {key.replace('_', ' ')}", paper, recipe.params.get(key)


def _task_items(analysis: Analysis, protocol: Protocol, spec: TrainSpec) -> Iterator[_Difference]:
    """Sizes of training and test sets, where ours are known."""
    for task in analysis.study.in_domain:
        paper, metric = protocol.tasks.get(analysis.benchmark(task)), analysis.metric(task)
        drawn = _training_items(analysis, task, spec.validation_fraction)
        if paper is None or metric is None or drawn is None:
            continue
        if abs(drawn - paper.train) > KNOWN_TO_ITEMS or metric.items != paper.scored:
            theirs, ours = f"{paper.train:,} / {paper.test:,}", f"{drawn:,} / {metric.items:,}"
            yield f"{analysis.title(task)}, train / test", theirs, ours


def _training_items(analysis: Analysis, task: str, held_out: float) -> int | None:
    """Items of the training split that trials used, with the fraction ``held_out``; to `KNOWN_TO_ITEMS`."""
    infos = (record.train_info for record in analysis.records)
    trained = next((info.train_items[task] for info in infos if info and task in info.train_items), None)
    return None if trained is None else round(trained / (1 - held_out))


def _short(value: Any) -> str:
    """In words; of paths and hub ids the last part."""
    if value is None:
        return "not given"
    if isinstance(value, list):
        return ", ".join(str(item).rsplit("/", 1)[-1] for item in value) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
