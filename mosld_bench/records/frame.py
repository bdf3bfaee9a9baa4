"""All records as one table for pandas: a view for whoever analyses them further; reports are made without it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosld_bench import collector
from mosld_bench.records.record import Record
from mosld_bench.records.store import Store
from mosld_bench.spec.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd


def load(results: Path | str | None = None, study: str | None = None) -> pd.DataFrame:
    """One tidy row per trial, task and metric; what is missing is missing, there are no sentinel numbers.

    ``results``: the folder of results, by default that of the workspace around; ``study``: of this study alone.

    One pass: every ``record.json`` is opened once, and nothing beside it is. A trial that only counted parameters, or
    that a search has stopped, has one row without task and metric; what else a search has scored is not of test items,
    as ``split`` says. Columns of the trial are repeated in each of its rows; ``record`` is the Record.

    Raises BadFileError for a file that is no record.
    """
    folder = Workspace.find().results if results is None else Path(results)
    with collector.off():
        return frame_of(Store(folder).records(study))


def frame_of(records: Iterable[Record]) -> pd.DataFrame:
    """The rows of `load` for records that are at hand."""
    import pandas as pd

    rows = [row for record in records for row in _rows(record)]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["study", "trial", "protocol", "record"])


def _rows(record: Record) -> list[dict[str, Any]]:
    """The rows of `load` that a record gives: one a metric, or one where nothing was scored."""
    trial, size, train = record.trial, record.size, record.train_info
    assert size is not None
    common = {
        "study": trial.study,
        "trial": record.trial_id,
        "protocol": trial.protocol,
        "recipe": trial.recipe.name,
        "title": trial.recipe.title,
        "method": trial.recipe.method,
        "group": trial.recipe.group,
        "setting": trial.setting,
        "train_on": ",".join(trial.train_on),
        "budget": trial.budget,
        "target": size.target,
        "trainable_parameters": size.trainable,
        "total_parameters": size.total,
        "residual": size.residual,
        "seed": trial.seed,
        "model": trial.model.name,
        "load": trial.model.load,
        "general_items": trial.general.items if trial.general else 0,
        "task_items": trial.condition.items,
        "learning_rate_scale": trial.recipe.learning_rate_scale,
        "rate": trial.rate,
        "split": trial.evaluate.split,
        "train_seconds": train.seconds if train else None,
        "tokens_per_second": train.tokens_per_second if train else None,
        "eval_seconds": record.eval_info.seconds if record.eval_info else None,
        "peak_memory_bytes": record.peak_memory_bytes,
        "record": record,
    }
    return [{**common, **metric.model_dump()} for metric in record.metrics] or [common]
