"""`parquet_bytes` writes what it was given, in less room than pandas alone."""

from __future__ import annotations

import io

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from mosld_bench.records.parquet import parquet_bytes

NUMBERS = st.floats(allow_nan=False)
COLUMNS = {
    "float": NUMBERS | st.none(),
    "score": st.sampled_from([0.0, 1.0]),
    "integer": st.integers(-(2**63), 2**63 - 1),
    "text": st.text(st.characters(exclude_categories=["Cs"])) | st.none(),
    "truth": st.booleans(),
    "list": st.lists(NUMBERS, max_size=4) | st.none(),
    "nothing": st.none(),
}


def read(content: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(content))


def plain(frame: pd.DataFrame) -> bytes:
    content: bytes = frame.to_parquet(index=False, compression="zstd")
    return content


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries(COLUMNS), max_size=30), st.integers(1, 12))
def test_what_is_read_is_what_was_written(rows: list[dict[str, object]], times: int) -> None:
    frame = pd.DataFrame(rows * times, columns=list(COLUMNS))
    pd.testing.assert_frame_equal(read(parquet_bytes(frame)), read(plain(frame)))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_log_likelihoods_and_their_items_take_less_room(kind: type[np.floating]) -> None:
    generator = np.random.default_rng(0)
    rows = 2_000
    frame = pd.DataFrame({
        "task": ["a"] * rows,
        "item": [f"train-{i}" for i in range(rows)],
        "doc": range(rows),
        "logliks": [generator.normal(-40, 9, 4).astype(kind) for _ in range(rows)],
        "probability": generator.uniform(size=rows),
        "score": generator.integers(0, 2, rows).astype(float),
    })  # fmt: skip
    content = parquet_bytes(frame)
    pd.testing.assert_frame_equal(read(content), read(plain(frame)))
    assert len(content) < 0.85 * len(plain(frame))
