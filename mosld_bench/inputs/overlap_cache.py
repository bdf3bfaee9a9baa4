"""The overlap search of a study, done once: kept beside its records as long as the tasks are the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from mosld_bench.errors import BadFileError
from mosld_bench.inputs.contamination import N, overlaps
from mosld_bench.records.overlap import Overlap, Overlaps
from mosld_bench.records.store import Store
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import EvaluateSpec

if TYPE_CHECKING:
    from mosld_bench.inputs.tasks import TaskLoader

_VERSION = 3  # of the search: raise it where the same tasks would give other overlaps


def cached_overlaps(
    store: Store,
    study: str,
    loader: Callable[[], TaskLoader],
    files: TaskFiles,
    *,
    train_on: Sequence[str],
    evaluated: Sequence[str],
    train_items: Mapping[str, int | None] | None = None,
    split_seed: int = 0,
    scored: EvaluateSpec | None = None,
) -> tuple[Overlap, ...]:
    """`contamination.overlaps`, from the store where it was computed from the same tasks; else computed and written.

    The same tasks are those with equal digests (`TaskFiles.digest`: definition and local data); a data set of the
    hub that changes under an unchanged definition goes unnoticed. ``loader`` makes the loader where one is needed, as
    importing lm-eval takes seconds.
    """
    key = {
        "version": _VERSION,
        "n": N,
        "most": dict(train_items or {}),
        "seed": split_seed,
        "train_on": list(train_on),
        "evaluated": list(evaluated),
        "scored": (scored or EvaluateSpec()).model_dump(),
        "digests": {name: files.digest(name) for name in (*train_on, *evaluated)},
    }
    with suppress(BadFileError):  # a damaged file is made again
        known = store.overlaps(study)
        if known is not None and known.key == key:
            return known.overlaps
    rows = overlaps(loader(), train_on, evaluated, train_items=train_items, split_seed=split_seed, scored=scored)
    made = Overlaps(key=key, overlaps=tuple(rows))
    store.write_overlaps(study, made)
    return made.overlaps
