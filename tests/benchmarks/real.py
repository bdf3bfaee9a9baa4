"""The real model and data that the benchmarks run on: SmolLM2-135M as fetched, data sets from a mirror."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import torch

from mosld_bench.inputs.models import load_base, load_tokenizer
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import ModelSpec
from mosld_bench.trial import device as meters
from tests.conftest import REPOSITORY

TASKS = ("openbookqa", "commonsense_qa", "mctest", "arc_easy", "arc_challenge")


def study() -> Study:
    return Study.load(REPOSITORY / "reports" / "smollm2" / "study.yaml")


def spec() -> ModelSpec:
    return study().models[0]


@cache
def smollm2(dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """(model, tokenizer), from where ``mosld-bench fetch smollm2`` puts them."""
    return load_base(spec(), dtype, "cpu"), load_tokenizer(spec())


def data_root() -> Path:
    root = os.environ.get("MOSLD_BENCH_DATA_ROOT")
    if not root:
        raise SystemExit("This benchmark needs real data: set MOSLD_BENCH_DATA_ROOT to a mirror of data sets.")
    return Path(root)


def loader(*folders: Path) -> TaskLoader:
    return TaskLoader([REPOSITORY / "tasks", *folders], data_root())


def threads() -> int:
    """All cores for one model: the figures are of one trial alone on the machine."""
    torch.set_num_threads(meters.cores())
    return torch.get_num_threads()
