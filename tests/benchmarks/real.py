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
from mosld_bench.trial.device import cores
from tests.conftest import REPOSITORY

TASKS = ("openbookqa", "commonsense_qa", "mctest", "arc_easy", "arc_challenge")


def study() -> Study:
    """The study `smollm2`, as its file has it."""
    return Study.load(REPOSITORY / "reports" / "smollm2" / "study.yaml")


def spec() -> ModelSpec:
    """The model of that study."""
    return study().models[0]


@cache
def smollm2(dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """(model, tokenizer), from where ``mosld-bench fetch smollm2`` puts them."""
    return load_base(spec(), dtype, "cpu"), load_tokenizer(spec())


def data_root() -> Path:
    """The folder of data sets. Raises SystemExit where the environment names none."""
    root = os.environ.get("MOSLD_BENCH_DATA_ROOT")
    if not root:
        raise SystemExit("This benchmark needs real data: set MOSLD_BENCH_DATA_ROOT to a mirror of data sets.")
    return Path(root)


def loader(*folders: Path) -> TaskLoader:
    """A loader of the repository's tasks and those of ``folders``, with the real data."""
    return TaskLoader([REPOSITORY / "tasks", *folders], data_root())


def threads() -> int:
    """Give torch all cores, as the figures are of one trial alone on the machine; their number."""
    torch.set_num_threads(cores())
    return torch.get_num_threads()
