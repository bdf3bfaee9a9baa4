"""The recipes of PEFT's methods: each one trained, at the size that it is planned with, to a lower loss."""

from __future__ import annotations

import math

import pytest

from mosld_bench.scheduling import make_plan
from mosld_bench.spec.recipe import load_recipes, select
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Resources
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial.execute import execute
from mosld_bench.trial.session import Session, WorkerConfig
from tests.conftest import REPOSITORY

WORKSPACE = Workspace(REPOSITORY, REPOSITORY)
RECIPES = select(load_recipes(WORKSPACE.methods), ["peft"])


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(WorkerConfig(task_folders=(str(WORKSPACE.tasks),), resources=Resources()))


@pytest.mark.parametrize("name", [recipe.name for recipe in RECIPES])
def test_it_trains_at_its_size(name: str, session: Session) -> None:
    asked = {
        "recipes": [name], "seeds": [0], "frozen_base": False, "train.steps": 8, "evaluate.limit": 4,
        "in_domain": ["emb_tools"], "out_of_domain": [], "train.learning_rate": 0.02, "train.warmup_steps": 0,
    }  # fmt: skip
    (planned,) = make_plan(Study.load(WORKSPACE.study_file("embedded"), asked), WORKSPACE).planned
    record = execute(planned.trial, session, planned.fit).record
    assert record.status == "finished", record.error
    assert record.train_info is not None
    assert record.size is not None
    fixed = planned.trial.recipe.fixed_size
    assert fixed == (planned.trial.budget == "native")
    assert fixed or abs(record.size.trainable - 60_000) <= 0.02 * 60_000
    losses = [point.loss for point in record.train_info.curve if point.loss is not None]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
