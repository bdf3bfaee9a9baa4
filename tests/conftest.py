"""What all tests share: a mirror of real data where there is one, and a tiny workspace with a random model."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.commands import python
from tests.support.repository import REPOSITORY as REPOSITORY
from tests.support.repository import declarations as declarations

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # toy models: a second thread costs more than it gives


def pytest_collection_finish() -> None:
    """What is loaded by now stays: it need not be looked through whenever garbage is collected, after every trial."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own, for the commands that they start too: what a user's holds is no matter of theirs."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOSLD_BENCH_CACHE", str(folder))
        yield folder


@pytest.fixture
def code_allowed() -> Iterator[None]:
    """Code that the test puts into files may run, as with --allow-code."""
    from mosld_bench.spec import foreign_code

    with foreign_code.allowed():
        yield


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where to compute: on a CPU, so that the test is known to work, and on a GPU, which it is for."""
    if request.param == "cuda":
        import torch

        if not torch.cuda.is_available():
            pytest.skip("torch finds no CUDA device here")
    return str(request.param)


@pytest.fixture
def mirror() -> Path:
    """The folder of real data sets, where there is one."""
    root = os.environ.get("MOSLD_BENCH_DATA_ROOT")
    if not root or not Path(root).is_dir():
        pytest.skip("MOSLD_BENCH_DATA_ROOT names no mirror of the data sets")
    return Path(root)


@pytest.fixture
def model_root() -> Path:
    """The folder of real models, where there is one."""
    root = os.environ.get("MOSLD_BENCH_MODEL_ROOT")
    if not root or not Path(root).is_dir():
        pytest.skip("MOSLD_BENCH_MODEL_ROOT names no folder of models")
    return Path(root)


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a few invented items of every data set that tasks/ names."""
    from tests.support.miniature import build

    return build(tmp_path_factory.mktemp("miniature"))


TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{train: {name}.jsonl, test: {name}.jsonl}}}}
{training}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}?"
doc_to_choice: options
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0, kind: toy, title: Toy {name}}}
"""

STUDY = """
question: Does it run?
model: {{name: {model}}}
recipes: [lora, mosld]
in_domain: [copy, count]
out_of_domain: [other]
budgets: [6k]
budget_tolerance: 0.2
seeds: [0]
train: {{steps: 4, batch_size: 4, learning_rate: 1.0e-2, max_length: 64}}
"""


def write_task(folder: Path, name: str, items: Sequence[Mapping[str, object]], trains: bool = True) -> None:
    """Define the task ``name`` in ``folder`` over ``items``, its split of training (if any) and of test alike."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / f"{name}.yaml").write_text(TASK.format(name=name, training="training_split: train" if trains else ""))


TEXT = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list: [{{metric: word_perplexity}}]
metadata: {{version: 1.0, kind: held-out text, title: Toy {name}}}
"""


def write_text(folder: Path, name: str, documents: Sequence[str]) -> None:
    """Define a task ``name`` in ``folder`` whose ``documents`` are a held-out text."""
    (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    (folder / f"{name}.yaml").write_text(TEXT.format(name=name))


def items(count: int, letters: str) -> list[dict[str, object]]:
    """``count`` items that ask which letter came first; the options have one and two letters."""
    rows: list[dict[str, object]] = []
    for index in range(count):
        first, second = letters[index % len(letters)], letters[(index * 3 + 1) % len(letters)]
        options = [first, second + "x", "no"]
        rows.append(
            {"id": f"{letters[0]}{index}", "question": f"{first}{second}{index}", "options": options, "answer": 0}
        )
    return rows


@pytest.fixture(scope="session")
def tiny_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace: our recipes, three toy tasks, a study, and a random model of four layers with its tokenizer."""
    from tests.support.models import build, config, tokenizer

    root = tmp_path_factory.mktemp("tiny")
    shutil.copytree(REPOSITORY / "methods", root / "methods")
    for name, letters, trains in (
        ("copy", "abcdefg", True),
        ("count", "hijklmn", True),
        ("other", "opqrst", False),
    ):
        write_task(root / "tasks", name, items(20, letters), trains)
    model = root / "model"
    build(config()).save_pretrained(model)
    tokenizer().save_pretrained(model)
    (root / "reports" / "tiny").mkdir(parents=True)
    return root


@pytest.fixture
def tiny(tiny_template: Path, tmp_path: Path) -> Path:
    """A workspace of its own for the test."""
    root = tmp_path / "root"
    shutil.copytree(tiny_template, root)
    (root / "reports" / "tiny" / "study.yaml").write_text(STUDY.format(model=root / "model"))
    return root


def tracked(*folders: str) -> list[str]:
    """The files that git tracks, in all or below ``folders``."""
    listing = ["git", "ls-files", *folders]
    return subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()


def bench(
    *words: str, cwd: Path | None = None, timeout: int = 240, fresh: bool = False, **env: str
) -> subprocess.CompletedProcess[str]:
    """What ``mosld-bench words`` did, in a process of its own with ``env`` added to this one's; seconds of time-out.

    A ``fresh`` process is as a shell starts it; another has the libraries from its start (`tests.support.commands`).
    """
    env = {**os.environ, **env}
    if not fresh:
        return python("-m", "mosld_bench", *words, cwd=cwd, env=env, timeout=timeout)
    return subprocess.run(
        [sys.executable, "-m", "mosld_bench", *words],
        capture_output=True, text=True, cwd=cwd, timeout=timeout, env=env,
    )  # fmt: skip
