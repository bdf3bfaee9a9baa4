"""The overlap search of a study, done once: kept beside its records as long as the tasks are the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mosld_bench.errors import BadFileError
from mosld_bench.inputs.contamination import N, overlaps
from mosld_bench.records.overlap import Overlap, Overlaps
from mosld_bench.records.store import Store
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import EvaluateSpec

if TYPE_CHECKING:
    from mosld_bench.inputs.tasks import TaskLoader

_VERSION = 3  # of the search: raise it where the same tasks would give other overlaps


@dataclass(frozen=True, kw_only=True)
class OverlapSearch:
    """What a search compares: the training sets ``train_on`` with the evaluation sets ``evaluated``.

    ``train_items``: task -> how many of its training items are drawn, with ``split_seed``; ``scored``: which items
    are evaluated.
    """

    train_on: Sequence[str]
    evaluated: Sequence[str]
    train_items: Mapping[str, int | None] = field(default_factory=dict)
    split_seed: int = 0
    scored: EvaluateSpec = field(default_factory=EvaluateSpec)

    @classmethod
    def of(cls, study: Study) -> OverlapSearch:
        """The search of a study that trains: its tasks and its general data against all that it scores."""
        assert study.train is not None, "a study that trains nothing has no training sets"
        general = {study.general.task: max(study.general.items)} if study.general else {}
        return cls(
            train_on=study.in_domain + tuple(general),
            evaluated=study.in_domain + study.out_of_domain,
            train_items={task: _most(study, task) for task in study.in_domain} | general,
            split_seed=study.train.split_seed,
            scored=study.evaluate,
        )

    def key(self, files: TaskFiles) -> dict[str, Any]:
        """All that its result follows from, as plain data. ``files`` have the tasks' digests.

        Tasks are the same while their digests are (`TaskFiles.digest`: definition and local data); a data set of the
        hub that changes under an unchanged definition goes unnoticed.
        """
        return {
            "version": _VERSION,
            "n": N,
            "most": dict(self.train_items),
            "seed": self.split_seed,
            "train_on": list(self.train_on),
            "evaluated": list(self.evaluated),
            "scored": self.scored.model_dump(),
            "digests": {name: files.digest(name) for name in (*self.train_on, *self.evaluated)},
        }


def _most(study: Study, task: str) -> int | None:
    """The most items of a task's training split that trials of the study draw; None for all of them."""
    amounts = [spec.items_of(task) for spec in study.train_specs]
    return None if None in amounts else max(filter(None, amounts), default=None)


def cached_overlaps(
    store: Store, study: str, search: OverlapSearch, files: TaskFiles, loader: Callable[[], TaskLoader]
) -> tuple[Overlap, ...]:
    """`contamination.overlaps` of ``search``: from the store where it was done before, else computed and written.

    ``loader`` makes the loader where one is needed, as importing lm-eval takes seconds.
    """
    key = search.key(files)
    with suppress(BadFileError):  # a damaged file is made again
        for known in store.overlaps(study):
            if known.key == key:
                return known.overlaps
    rows = overlaps(
        loader(),
        search.train_on,
        search.evaluated,
        train_items=search.train_items,
        split_seed=search.split_seed,
        scored=search.scored,
    )
    made = Overlaps(key=key, overlaps=tuple(rows))
    store.write_overlaps(study, made)
    return made.overlaps
