"""On a processor without bfloat16, whatever multiplies matrices of it for a record does so in float32."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mosld_bench.compat import torch as compat
from mosld_bench.cost.measure import Options
from mosld_bench.embedded import MODEL_DIR
from mosld_bench.records.record import Record
from mosld_bench.spec.trial import EvaluateSpec, ModelSpec
from mosld_bench.trial.device import core_rate
from mosld_bench.trial.execute import execute
from mosld_bench.trial.score import Scoring, score
from mosld_bench.trial.session import Session
from tests.cost.test_measure import SMALL, measured
from tests.support.runs import prepare

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture
def dtypes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[torch.dtype, torch.dtype]]]:
    """The dtype of each product's factors, and that in which it was taken; this processor seems to have no bfloat16."""
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    class Watched(compat.Float32Products):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in compat._PRODUCTS and args[0].dtype == torch.bfloat16:
                seen.append((torch.bfloat16, torch.float32 if compat._is_slow(func, args) else torch.bfloat16))
            return super().__torch_dispatch__(func, types, args, kwargs)

    monkeypatch.setattr(compat, "Float32Products", Watched)
    monkeypatch.setattr(compat, "has_bfloat16", lambda: False)
    yield seen
    monkeypatch.undo()
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None  # it is left as it was


def record_of(tiny: Path, **overrides: Any) -> Record:
    _, planned, config = prepare(tiny, recipes=["mosld"], frozen_base=False, **overrides)
    outcome = execute(planned[0].trial, Session(config), planned[0].fit)
    assert outcome.record.status == "finished", outcome.record.error
    return outcome.record


def losses(record: Record) -> list[float]:
    assert record.train_info is not None
    return [point.loss for point in record.train_info.curve if point.loss is not None]


def test_a_trial_trains_and_scores_so_and_comes_to_the_same(
    tiny: Path, dtypes: list[tuple[torch.dtype, torch.dtype]], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_float32 = record_of(tiny, **{"train.dtype": "bfloat16"})
    taken = len(dtypes)
    assert taken > 100
    assert sum(how == torch.float32 for _, how in dtypes) > 0.8 * taken
    record_of(tiny)
    assert len(dtypes) == taken, "a trial in float32 is left alone"
    monkeypatch.setattr(compat, "has_bfloat16", lambda: True)
    natively = record_of(tiny, **{"train.dtype": "bfloat16"})
    assert len(dtypes) == taken
    assert losses(in_float32) == pytest.approx(losses(natively), rel=0.02)


def test_so_do_score_and_profile_and_the_rate_of_a_core(
    tiny: Path, dtypes: list[tuple[torch.dtype, torch.dtype]]
) -> None:
    _, _, config = prepare(tiny)
    scoring = Scoring(study="some", title="some", model=ModelSpec(name=str(MODEL_DIR)), adapter=None, tasks=("copy",),
                      evaluate=EvaluateSpec(limit=4), dtype="bfloat16")  # fmt: skip
    score(scoring, Session(config), [])
    assert len(dtypes) > 10
    dtypes.clear()
    measured(tiny, Options(SMALL, device="cpu", dtype="bfloat16"), recipes=["lora"])
    assert len(dtypes) > 10
    dtypes.clear()
    assert core_rate("bfloat16") > 0
    assert len(dtypes) > 1
