"""Files that travel to machines of a cluster which do not see them: what is taken along, and what is made of it."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.errors import ResourceError
from mosld_bench.methods import registry
from mosld_bench.scheduling import node_files
from mosld_bench.scheduling.node_files import NodeFiles, placed
from mosld_bench.spec import foreign_code
from mosld_bench.spec.trial import Resources
from mosld_bench.trial.session import Session, WorkerConfig
from tests.support.runs import prepare

COMMON = """dataset_path: json
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{options}}"
output_type: multiple_choice
test_split: test
"""
ROW = {"question": "Is it so?", "answer": 0, "options": ["yes", "no"]}
#: Task -> where it has its data from, as its definition says it.
TASKS = {
    "beside": "dataset_kwargs: {{data_files: {{test: rows.jsonl}}}}",
    "apart": "dataset_kwargs: {{data_files: {{test: ../data/*.jsonl}}}}",
    "absolute": "dataset_kwargs: {{data_files: {{test: {root}/data/test.jsonl}}}}",
    "from_here": "dataset_kwargs: {{data_files: {{test: here/rows.jsonl}}}}",
    "folder": "dataset_kwargs: {{data_dir: {root}/data}}",
    "function": "process_docs: !function helper.same\ndataset_kwargs: {{data_files: {{test: rows.jsonl}}}}",
    "mirrored": "dataset_path: some/data",
}
PLUGIN = """from mosld_bench import register
from mosld_bench.methods.builtin import PeftMethod
import travelling_helper

@register("travelling")
class Travelling(PeftMethod):
    pass
"""


def rows(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(ROW | {"question": f"Is it {path.stem} {i}?"}) + "\n" for i in range(count)))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A workspace whose tasks read data in all ways there are, and a plug-in in the current folder."""
    root = tmp_path / "driver"
    (root / "tasks").mkdir(parents=True)
    (root / "common.yaml").write_text(COMMON)
    for number, (name, data) in enumerate(TASKS.items(), 3):
        where = data.format(root=root)
        (root / "tasks" / f"{name}.yaml").write_text(f"include: ../common.yaml\ntask: {name}\n{where}\n")
        (root / "tasks" / "helper.py").write_text("def same(docs):\n    return docs\n")
        rows(root / "cwd" / "here" / "rows.jsonl", number)
    rows(root / "tasks" / "rows.jsonl", 3)
    rows(root / "data" / "test.jsonl", 4)
    rows(root / "mirror" / "some" / "data" / "test.jsonl", 5)
    (root / "cwd" / "travelling_plugin.py").write_text(PLUGIN)
    (root / "cwd" / "travelling_helper.py").write_text("")
    monkeypatch.chdir(root / "cwd")
    monkeypatch.syspath_prepend(str(root / "cwd"))
    yield root
    registry._registered.pop("travelling", None)
    for name in ("travelling_plugin", "travelling_helper"):
        sys.modules.pop(name, None)


class Asked:
    """As much of a trial as is looked at."""

    def __init__(self, *tasks: str) -> None:
        self.task_digests = dict.fromkeys(tasks, "")


def config_of(root: Path, **more: Any) -> WorkerConfig:
    return WorkerConfig((str(root / "tasks"),), Resources(), data_root=str(root / "mirror"), **more)


def listed(root: Path, config: WorkerConfig) -> NodeFiles:
    trials: Any = [Asked(*TASKS)]
    return NodeFiles.of(config, trials)


def _read(config: WorkerConfig, files: NodeFiles, content: bytes) -> dict[str, Any]:
    """In another process: what it has of the tasks and the plug-in."""
    foreign_code.allow()
    there = placed(config, files, lambda: content)
    session = Session(there)
    docs = {name: [doc["question"] for doc in session.tasks.get(name).test_docs()] for name in TASKS}
    return {"docs": docs, "methods": sorted(registry.loaded()), "cwd": str(Path.cwd()), "there": there}


def test_a_machine_without_the_files_reads_what_the_first_one_reads(
    place: Path, tmp_path: Path, code_allowed: None
) -> None:
    """Beside a definition, apart from it, by an absolute path, from the current folder, in a mirror; Python as well."""
    importlib.import_module("travelling_plugin")
    config = config_of(place, plugins=("travelling_plugin",), import_from=(str(Path.cwd()),))
    here = {name: [doc["question"] for doc in Session(config).tasks.get(name).test_docs()] for name in TASKS}
    files = listed(place, config)
    content = files.pack()
    assert content is not None
    place.rename(tmp_path / "elsewhere")
    os.chdir(tmp_path)
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            there = pool.submit(_read, config, files, content).result()
    finally:
        (tmp_path / "elsewhere").rename(place)
        os.chdir(place / "cwd")
    assert there["docs"] == here
    assert {name: len(docs) for name, docs in here.items()} == {
        "beside": 3, "apart": 4, "absolute": 4, "from_here": 9, "folder": 4, "function": 3, "mirrored": 5,
    }  # fmt: skip
    assert "travelling" in there["methods"]
    unpacked = Path(there["there"].task_folders[0])
    assert not unpacked.is_relative_to(place)
    assert there["cwd"] == str(Path(there["there"].import_from[0]))
    assert not unpacked.exists()  # it goes with the process


def test_what_travels_is_what_the_trials_read_and_no_more(place: Path) -> None:
    rows(place / "mirror" / "other" / "data" / "test.jsonl", 5)
    (place / "tasks" / "large.bin").write_bytes(b"x")
    trials: Any = [Asked("beside", "mirrored")]
    paths = {Path(file.path).relative_to(place) for file in NodeFiles.of(config_of(place), trials).files}
    assert paths == {
        *(Path("tasks") / f"{name}.yaml" for name in TASKS), Path("common.yaml"), Path("tasks/helper.py"),
        Path("tasks/rows.jsonl"), Path("mirror/some/data/test.jsonl"),
    }  # fmt: skip


def test_where_all_is_seen_nothing_changes_but_a_machine_s_own_roots(place: Path, tmp_path: Path) -> None:
    config = config_of(place, model_root=str(place / "models"))
    files = listed(place, config)
    assert files.missing() == []
    assert placed(config, files, lambda: None, {}) == config
    own = {node_files.MODEL_ROOT: str(tmp_path), node_files.DATA_ROOT: str(tmp_path)}
    there = placed(config, files, lambda: None, own)  # the data root is there, the folder of models is not
    assert (there.data_root, there.model_root) == (config.data_root, str(tmp_path))


def test_a_file_that_is_another_one_by_now_is_missing(place: Path) -> None:
    files = listed(place, config_of(place))
    rows(place / "data" / "test.jsonl", 6)
    assert files.missing() == [str(place / "data" / "test.jsonl")]


def test_what_is_too_large_to_travel_is_said_with_what_is_missing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_files, "MOST_BYTES", 100)
    config = config_of(place)
    files = listed(place, config)
    assert files.pack() is None
    mirror = place / "mirror"
    mirror.rename(tmp_path / "mirror-of-this-machine")
    with pytest.raises(ResourceError, match=r"has no .*/mirror/some/data/test\.jsonl, and what this study reads is"):
        placed(config, files, lambda: None, {})
    with pytest.raises(ResourceError, match="has no"):  # a folder of data sets without this one is of no use
        placed(config, files, lambda: None, {node_files.DATA_ROOT: str(tmp_path)})
    own = placed(config, files, lambda: None, {node_files.DATA_ROOT: str(tmp_path / "mirror-of-this-machine")})
    assert own.data_root == str(tmp_path / "mirror-of-this-machine")


def test_the_embedded_study_takes_its_tasks_along_and_no_data(tiny: Path) -> None:
    _, planned, config = prepare(tiny)
    names = {Path(file.path).name for file in NodeFiles.of(config, (trial for trial, _ in planned)).files}
    assert names == {f"{task}.{kind}" for task in ("copy", "count", "other") for kind in ("yaml", "jsonl")}
