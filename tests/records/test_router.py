"""What routers did, as a store writes it and gives it back; a file of other content is refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mosld_bench.errors import BadFileError
from mosld_bench.records.record import Outcome
from mosld_bench.records.router import COLUMNS, read_router
from mosld_bench.records.store import Store
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials


def frame() -> pd.DataFrame:
    """Two experts of one module, as many picks each."""
    row = {
        "step": 4, "split": "test", "task": "a", "module": "layers.0.q_proj", "layer": 0, "experts": 2, "tokens": 9,
        "picks": 9, "mass": 4.5, "probability": 4.5, "entropy_before": 6.2, "entropy_after": 6.2, "sample": b"\xff\x80",
    }  # fmt: skip
    return pd.DataFrame([{**row, "expert": expert} for expert in range(2)])[list(COLUMNS)]


def test_it_comes_back_as_it_was_written_and_goes_with_the_record(tmp_path: Path) -> None:
    study = make_study()
    store, finished = Store(tmp_path), make_record(make_trials(study, [RECIPES["mosld"]])[0], study)
    store.write(Outcome(finished, router=frame()))
    kept = store.router(finished.trial)
    assert kept is not None
    assert kept.equals(frame().astype(kept.dtypes.to_dict()))
    assert list(kept["sample"]) == [b"\xff\x80"] * 2
    store.write(Outcome(finished))
    assert store.router(finished.trial) is None


@pytest.mark.parametrize("content", [b"", b"no parquet", None])
def test_a_file_of_other_content_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "router.parquet"
    if content is None:
        frame().drop(columns=["mass", "picks"]).to_parquet(path)
    else:
        path.write_bytes(content)
    with pytest.raises(BadFileError, match="what the routers of a trial did"):
        read_router(path)
