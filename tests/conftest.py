"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture
def mirror() -> Path:
    """The folder of real data sets, where there is one."""
    root = os.environ.get("MOSLD_BENCH_DATA_ROOT")
    if not root or not Path(root).is_dir():
        pytest.skip("MOSLD_BENCH_DATA_ROOT names no mirror of the data sets")
    return Path(root)
