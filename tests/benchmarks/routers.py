"""What it costs to note what routers do: whole trials of the embedded default with the log and without."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any
from unittest.mock import patch

from mosld_bench.inputs.models import load_config
from mosld_bench.methods import count_trainable, registry
from mosld_bench.records.record import Outcome
from mosld_bench.scheduling import make_plan
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import PlannedTrial
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial.execute import execute
from mosld_bench.trial.router_log import RouterLog
from mosld_bench.trial.session import Session, WorkerConfig
from tests.benchmarks.side_by_side import Row, in_turns, share
from tests.conftest import REPOSITORY

#: Title -> parameters in place of the recipe's.
SETTINGS: dict[str, Mapping[str, Any]] = {
    "MoSLD": {},
    "64 experts of rank 1, top-2": {"experts": 64, "r": 1, "lora_alpha": 2, "share": "none", "balance_coef": 0.0,
                                    "dropout": 0.0, "dropout_on": "none"},
}  # fmt: skip


def run(rounds: int, overrides: Mapping[str, Any] | None = None) -> Iterator[Row]:
    """One row for each of :data:`SETTINGS`. ``overrides``: keys of the study, to make its trials shorter."""
    workspace = Workspace(REPOSITORY, REPOSITORY)
    chosen = {"recipes": ["mosld"], "frozen_base": False, "seeds": [0], **(overrides or {})}
    study = Study.load(REPOSITORY / "reports/embedded/study.yaml", chosen)
    session = Session(WorkerConfig(task_folders=(str(workspace.tasks),), resources=study.resources))
    (planned,) = make_plan(study, workspace).planned
    for title, params in SETTINGS.items():
        trial, fit = _at(planned, params)
        outcomes: dict[str, Outcome] = {}

        def noted(trial: Any = trial, fit: Any = fit, outcomes: dict[str, Outcome] = outcomes) -> None:
            outcomes["noted"] = execute(trial, session, fit)

        def bare(trial: Any = trial, fit: Any = fit, outcomes: dict[str, Outcome] = outcomes) -> None:
            with patch.object(RouterLog, "of", lambda model: None):
                outcomes["bare"] = execute(trial, session, fit)

        # Seconds of the processor: a share of a few hundredths is lost in what else a machine does.
        seconds = in_turns({"noted": noted, "bare": bare}, rounds, clock=time.process_time)
        frame, info = outcomes["noted"].router, outcomes["noted"].record.train_info
        assert frame is not None
        assert info is not None
        yield share(
            "routers", f"a trial of the embedded model, {title}, with what its routers do", against="without",
            ours=seconds["noted"], other=seconds["bare"], wanted="<= 1.05",
            note=f"processor time, {info.steps} steps; {len(frame):,} rows, "
                 f"{frame.drop_duplicates(['step', 'split', 'task'])['tokens'].sum():,} tokens counted",
        )  # fmt: skip


def _at(planned: PlannedTrial, params: Mapping[str, Any]) -> PlannedTrial:
    """The trial with ``params`` in place of the recipe's, of whatever size it then has."""
    trial, fit = planned
    if not params:
        return planned
    recipe = trial.recipe.model_copy(update={"params": {**fit.params, **params}})
    size = count_trainable(registry.get(recipe.method), load_config(trial.model), recipe.params)
    return PlannedTrial(
        trial.model_copy(update={"recipe": recipe}),
        fit.model_copy(update={"trainable": size, "params": recipe.params}),
    )
