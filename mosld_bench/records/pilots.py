"""Pilots: records that are there before a study is run, and tell how much its rows will scatter.

They are of rows of two seeds or more, trained on the study's tasks. The nearest are those of the study itself; then
come others, nearer by the base model, then by how they were trained, then by setting, general data and budget.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mosld_bench.errors import BenchError
from mosld_bench.records.record import Record
from mosld_bench.records.store import Store
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Condition, EvaluateSpec, TrainSpec, Trial, canonical

_LEAST_FREEDOM = 2  # degrees of freedom, below which seeds tell nothing of their noise
_ID = re.compile(r"(.+)-s[0-9]+-[0-9a-f]{8}")  # of a trial, and in it what its seeds have in common (`Trial.id`)


@dataclass(frozen=True)
class Pilot:
    """Finished trials of one study, protocol and condition: the recipes of a block that have two seeds or more.

    ``own``: whether that is the study which is planned; ``outside``: whether its out-of-domain tasks were scored.
    """

    trials: tuple[Trial, ...]
    own: bool
    outside: bool

    @property
    def study(self) -> str:
        """The study that the records lie under."""
        return self.trials[0].study

    @property
    def freedom(self) -> int:
        """Degrees of freedom that its seeds leave for their noise, if all have a score."""
        cells = {(trial.recipe.name, trial.seed) for trial in self.trials}
        return len(cells) - len({recipe for recipe, _ in cells}) - len({seed for _, seed in cells}) + 1

    def differences(self, planned: Trial) -> dict[str, str]:
        """Key of a study -> its value here, where the trial ``planned`` has another; what weighs most is first.

        How many items are scored is left out: noise is converted from one number to another.
        """
        there = self.trials[0]
        differing: dict[str, str] = {}
        if there.model != planned.model:
            same_name = there.model.name == planned.model.name
            if same_name and there.model.load != planned.model.load:
                differing["model.load"] = _word(there.model.load)
            else:
                differing["model"] = f"revision {there.model.revision}" if same_name else there.model.name
        for part, kind in (("train", TrainSpec), ("evaluate", EvaluateSpec)):
            ours, theirs = getattr(planned, part), getattr(there, part)
            for key in kind.model_fields:
                value, asked = getattr(theirs, key), getattr(ours, key)
                told_by_the_other = value is None and key in {"steps", "epochs"}
                if value != asked and key != "limit" and not told_by_the_other:
                    differing[f"{part}.{key}"] = _word(value)
        names = {"general": "general.items", "rate": "rates", "items": "train.task_items"}
        for key, value, asked in zip(Condition._fields, there.condition, planned.condition, strict=True):
            if key != "model" and value != asked:
                differing[names.get(key, key)] = _word(value)
        return differing

    def distance(self, planned: Trial) -> tuple[Any, ...]:
        """A key to sort by: the pilot that is nearest to the block of ``planned`` first, of equals the one of most."""
        differing = self.differences(planned)
        trained = sum("." in key for key in differing)
        of_condition = [key in differing for key in ("setting", "general.items", "budget")]
        others = len(differing) - trained - sum(of_condition)
        limits = self.trials[0].evaluate.limit != planned.evaluate.limit
        return "model" in differing, trained, *of_condition, others, not self.own, limits, -self.freedom, self.study

    def records(self, store: Store) -> list[Record]:
        """Its records; those that cannot be read are left out."""
        records: list[Record] = []
        for trial in self.trials:
            with suppress(BenchError, OSError):
                records += [record] if (record := store.record(trial)) else []
        return records


def find_pilots(study: Study, trials: Sequence[Trial], store: Store) -> list[Pilot]:
    """The pilots of a study in all folders of ``store``; ``trials``: its plan. No record is read whole.

    A folder is looked into only where it has two recipes of two seeds or more, by the names of its trials.
    """
    inside, outside = (_digests(tasks, trials) for tasks in (study.in_domain, study.out_of_domain))
    pilots = []
    for there in _by_protocol(store):
        if _digests({task for trial in there for task in trial.in_domain}, there) != inside:
            continue
        scored = outside.items() <= _digests(there[0].out_of_domain, there).items()
        for condition in dict.fromkeys(trial.condition for trial in there):
            block = _of_several_seeds(trial for trial in there if trial.condition == condition)
            if block and (pilot := Pilot(block, block[0].study == study.name, scored)).freedom >= _LEAST_FREEDOM:
                pilots.append(pilot)
    return pilots


def _word(value: Any) -> str:
    return "none" if value is None else str(value)


def _digests(tasks: Collection[str], trials: Sequence[Trial]) -> dict[str, str]:
    """Task -> its digest, of ``tasks``."""
    return {task: digest for trial in trials for task, digest in trial.task_digests.items() if task in tasks}


def _by_protocol(store: Store) -> Iterator[list[Trial]]:
    """The finished trials that trained with two seeds or more, study by study and protocol by protocol."""
    for study, ids in store.trial_ids().items():
        names = {trial_id: match[1] for trial_id in ids if (match := _ID.fullmatch(trial_id))}
        seeds = Counter(names.values())
        repeated = [trial_id for trial_id, name in names.items() if seeds[name] > 1]
        if len({names[trial_id] for trial_id in repeated}) < 2:
            continue
        by_protocol: dict[str, list[Trial]] = {}
        for trial_id in repeated:
            with suppress(BenchError):  # what cannot be read, the commands of its own study tell
                trial = store.trial(study, trial_id)
                scored = trial.train_on and trial.evaluate.split == "test"  # not a search for learning rates
                if scored and (trial.study, trial.id) == (study, trial_id):
                    by_protocol.setdefault(trial.protocol, []).append(trial)
        yield from by_protocol.values()


def _of_several_seeds(block: Iterable[Trial]) -> tuple[Trial, ...]:
    """The trials of the recipes with two seeds or more; of several versions of a recipe the one with the most."""
    versions: dict[str, dict[str, list[Trial]]] = {}
    for trial in block:
        versions.setdefault(trial.recipe.name, {}).setdefault(canonical(trial.recipe.identity), []).append(trial)
    chosen = [max(of_recipe.values(), key=len) for of_recipe in versions.values()]
    return tuple(trial for trials in chosen if len({trial.seed for trial in trials}) > 1 for trial in trials)
