"""What two rows do not have in common beside their method, field by field, and what that means for a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mosld_bench.records.record import Record
from mosld_bench.reporting.rows import Row
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Trial

#: The first part of a field's name, or the first two -> what a comparison loses where the field is not the same.
EFFECTS = {
    "protocol": "Other versions of the protocol made them: a difference is also one of versions.",
    "setting": "They were trained on other tasks together: a difference is also one of what there was to learn.",
    "in_domain": "They were trained on other tasks; means are over the tasks that both have.",
    "out_of_domain": "Means are over the tasks that both have.",
    "budget": "They are not of one size: a difference is also one of size.",
    "model": "They start from other models: a difference is also theirs.",
    "train": "They were trained otherwise: a difference is also one of training.",
    "general": "Other general data was mixed in: a difference is also one of data.",
    "evaluate": "Other samples of items were scored: compared are those that both have.",
    "evaluate.text": "The loss was taken of another held-out text, or of none; that moves no score.",
    "tasks": "A task of one name is defined otherwise: its numbers may mean something else.",
    "recipe": "The recipe of that name is not the same in both: a difference is also one of its settings.",
    "method": "Other code of the method trained them.",
    "weights": "The base model's weights are from another file.",
    "versions": "Other software made them, which alone may move numbers a little.",
    "hardware": "Other hardware made them, which alone may move numbers a little.",
}
_PACKAGES = ("torch", "transformers", "peft", "lm_eval")


class Unlike(NamedTuple):
    """A field that is not the same: its dotted name, and what each side has; a list where a side has several."""

    name: str
    ours: Any
    theirs: Any

    @property
    def effect(self) -> str:
        """What a comparison loses by it, in a sentence."""
        parts = self.name.split(".")
        return EFFECTS.get(".".join(parts[:2])) or EFFECTS[parts[0]]


def trials_differ(ours: Trial, theirs: Trial) -> list[Unlike]:
    """The fields of two trials' protocols that are not the same; a task that only one is scored on is none."""
    return _unlike(_protocol(ours), _protocol(theirs))


def rows_differ(ours: Row, theirs: Row, our_study: Study, their_study: Study) -> list[Unlike]:
    """All in which two rows differ beside their method: protocol, size, settings of one recipe, and what made them.

    Of an untrained model and a trained one nothing that is of training: that is what tells them apart.
    """
    trained = not (ours.frozen or theirs.frozen)
    found = _unlike(_of_row(ours, our_study, trained), _of_row(theirs, their_study, trained))
    if ours.budget != theirs.budget:
        found = [field for field in found if field.name != "budget.parameters"]
    protocols = [{record.trial.protocol for record in row.records} for row in (ours, theirs)]
    of_protocol = {"in_domain", "out_of_domain", "model", "train", "general", "evaluate", "tasks"}
    if protocols[0] != protocols[1] and not any(field.name.partition(".")[0] in of_protocol for field in found):
        found.append(Unlike("protocol", *(_one_or_all(sorted(values)) for values in protocols)))
    if ours.recipe.name == theirs.recipe.name:
        found += _unlike(_settings(ours), _settings(theirs))
    of_method = ours.recipe.method == theirs.recipe.method
    made = [_merged(_origin(record, of_method) for record in row.records) for row in (ours, theirs)]
    return found + [field for field in _unlike(*made) if None not in (field.ours, field.theirs)]  # None: not noted


def _unlike(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Unlike]:
    """The keys with unequal values; of the keys ``tasks.TASK`` those that both have."""
    keys = [k for k in dict.fromkeys([*ours, *theirs]) if not k.startswith("tasks.") or (k in ours and k in theirs)]
    return [Unlike(key, ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)]


def _protocol(trial: Trial) -> dict[str, Any]:
    """Dotted field -> value, of what trials have in common where they are compared."""
    return {
        "model.name": trial.model.name,
        "model.revision": trial.model.revision,
        "model.load": trial.model.load,
        **{f"train.{key}": value for key, value in trial.train or ()},
        **{f"evaluate.{key}": value for key, value in trial.evaluate},
        **{f"tasks.{task}": trial.task_digests.get(task) for task in trial.scored_on},
        "general.task": trial.general.task if trial.general else None,
    }


def _of_row(row: Row, study: Study, trained: bool) -> dict[str, Any]:
    fields = _merged(_protocol(record.trial) for record in row.records)
    if not trained:
        return {key: value for key, value in fields.items() if key.partition(".")[0] not in {"train", "general"}}
    targets = {record.size.target for record in row.records if record.size and record.size.target is not None}
    return {
        "setting": row.setting,
        "in_domain": list(study.in_domain),
        "out_of_domain": list(study.out_of_domain),
        "budget": row.budget,
        "budget.parameters": _one_or_all(sorted(targets)),
        **fields,
        "general.items": row.condition.general,
    }


def _settings(row: Row) -> dict[str, Any]:
    """Dotted field -> value of a recipe's settings, as they are written."""
    identity = row.recipe.identity
    params = identity.pop("params", {})
    fields = {f"recipe.{key}": value for key, value in identity.items()}
    return fields | {f"recipe.params.{key}": value for key, value in params.items()}


def _origin(record: Record, of_method: bool) -> dict[str, Any]:
    """What a record's numbers came from, ``of_method``: its method's code too; None where it is not noted."""
    info = {key: value for key, value in record.meta_info.items() if isinstance(value, Mapping)}
    versions, hardware = info.get("versions", {}), info.get("hardware", {})
    fields = {
        "weights.sha256": info.get("weights", {}).get("sha256"),
        **{f"versions.{package}": versions.get(package) for package in _PACKAGES},
        "hardware.cpu": hardware.get("cpu"),
        "hardware.bfloat16": hardware.get("bfloat16"),
        "hardware.gpu": (hardware.get("gpu") or "none") if hardware else None,
    }
    return ({"method.version": info.get("method", {}).get("version", 1)} if of_method else {}) | fields


def _merged(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Field -> its value in all records that have it, or the list of its values."""
    values: dict[str, list[Any]] = {}
    for fields in records:
        for key, value in fields.items():
            seen = values.setdefault(key, [])
            seen += [] if value in seen else [value]
    return {key: _one_or_all(seen) for key, seen in values.items()}


def _one_or_all(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values) or None
