"""Files that travel to machines of a cluster which do not see them: what is taken along, and what is made of it."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.errors import ModelError, ResourceError
from mosld_bench.inputs.source_note import write_note
from mosld_bench.methods import registry
from mosld_bench.scheduling import node_files
from mosld_bench.scheduling.node_files import FileGroup, NodeFiles, placed, placed_model
from mosld_bench.spec import foreign_code
from mosld_bench.spec.model_folder import content_digest, located
from mosld_bench.spec.trial import ModelSpec, Resources
from mosld_bench.trial.session import Session, WorkerConfig
from tests.conftest import REPOSITORY
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


def nothing(part: str) -> bytes | None:
    """Where nothing is to be fetched."""
    raise AssertionError(f"{part} should not have been fetched")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TMPDIR of this machine and of its workers."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def _read(config: WorkerConfig, files: NodeFiles, content: dict[str, bytes]) -> dict[str, Any]:
    """In another process: what it has of the tasks and the plug-in."""
    foreign_code.allow()
    there = placed(config, files, content.__getitem__)
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
    old = place / "tasks" / "rows.jsonl"
    os.utime(old, (0, 0))  # zip files know no time before 1980
    files = listed(place, config)
    content = {"definitions": files.definitions.pack() or b"", "data": files.data.pack() or b""}
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


def relative(group: FileGroup, root: Path) -> set[Path]:
    return {Path(file.path).relative_to(root) for file in group.files}


def test_what_travels_is_what_the_trials_read_and_no_more(place: Path) -> None:
    rows(place / "mirror" / "other" / "data" / "test.jsonl", 5)
    (place / "tasks" / "large.bin").write_bytes(b"x")
    trials: Any = [Asked("beside", "mirrored")]
    files = NodeFiles.of(config_of(place), trials)
    assert relative(files.definitions, place) == {
        *(Path("tasks") / f"{name}.yaml" for name in TASKS), Path("common.yaml"), Path("tasks/helper.py"),
        Path("tasks/rows.jsonl"),
    }  # fmt: skip
    assert relative(files.data, place) == {Path("mirror/some/data/test.jsonl")}
    assert files.data_sets == ("some/data",)


def test_data_of_a_task_of_lm_eval_s_own_and_of_a_class_are_listed_as_they_are_loaded(
    place: Path, code_allowed: None
) -> None:
    """Neither says in a file of the task folders what it reads."""
    rows(place / "mirror" / "allenai" / "ai2_arc" / "ARC-Easy" / "test.jsonl", 5)
    rows(place / "mirror" / "of" / "a-class" / "test.jsonl", 5)
    (place / "tasks" / "own_class.py").write_text(
        "from lm_eval.api.task import ConfigurableTask\n\n\nclass Own(ConfigurableTask):\n"
        "    DATASET_PATH = 'of/a-class'\n"
    )
    (place / "tasks" / "classed.yaml").write_text("task: classed\nclass: !function own_class.Own\n")
    trials: Any = [Asked("arc_easy", "classed")]
    files = NodeFiles.of(config_of(place), trials)
    assert relative(files.data, place / "mirror") == {
        Path("allenai/ai2_arc/ARC-Easy/test.jsonl"), Path("of/a-class/test.jsonl"),
    }  # fmt: skip


def test_where_all_is_seen_nothing_changes_but_a_machine_s_own_roots(place: Path, tmp_path: Path) -> None:
    config = config_of(place, model_root=str(place / "models"))
    files = listed(place, config)
    assert (files.definitions.missing(), files.data.missing()) == ([], [])
    os.chdir(tmp_path)
    assert placed(config, files, nothing, {}) == config
    assert Path.cwd() == place / "cwd"  # from where a definition names its data, wherever Ray was started
    own = {node_files.MODEL_ROOT: str(tmp_path), node_files.DATA_ROOT: str(tmp_path)}
    there = placed(config, files, nothing, own)  # the data root is there, the folder of models is not
    assert (there.data_root, there.model_root) == (config.data_root, str(tmp_path))


def test_what_killed_workers_left_in_the_temporary_folder_is_removed(place: Path, temporary: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "from mosld_bench.scratch import prefix; print(prefix())"],
        capture_output=True, text=True, check=True, cwd=REPOSITORY,
    ).stdout.strip()  # fmt: skip
    (temporary / f"{dead}trained").mkdir()
    (temporary / "another's").mkdir()
    config = config_of(place)
    placed(config, listed(place, config), nothing, {})
    assert [path.name for path in temporary.iterdir()] == ["another's"]


def test_a_machine_has_roots_of_its_own_where_the_run_has_none(place: Path, tmp_path: Path) -> None:
    config = replace(config_of(place), data_root=None)
    trials: Any = [Asked("mirrored")]
    files = NodeFiles.of(config, trials)
    own = {node_files.MODEL_ROOT: str(tmp_path), node_files.DATA_ROOT: str(place / "mirror")}
    there = placed(config, files, nothing, own)
    assert (there.data_root, there.model_root) == (str(place / "mirror"), str(tmp_path))
    there = placed(config, files, nothing, {node_files.DATA_ROOT: str(tmp_path)})  # where they are not
    assert (there.data_root, there.model_root) == (None, None)


def test_a_file_is_known_by_its_size_and_its_time_or_its_content(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place / "data" / "test.jsonl"
    monkeypatch.setattr(node_files, "_COMPARED", 64)  # of which every byte is looked at, in pieces
    files = listed(place, config_of(place)).definitions
    os.utime(path, (1, 1))  # a copy
    assert files.missing() == []
    before = path.read_text()
    path.write_text(before.replace("yes", "Yes"))
    assert files.missing() == [str(path)]
    path.write_text(before)
    rows(path, 6)
    assert files.missing() == [str(path)]


@pytest.mark.parametrize("compared", [1 << 26, 64])
def test_a_machine_s_own_data_are_taken_where_they_are_the_same(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compared: int
) -> None:
    """An older file of the same name and size is another one: its items would be scored in silence."""
    monkeypatch.setattr(node_files, "_COMPARED", compared)
    config = config_of(place)
    files = listed(place, config)
    own = tmp_path / "own"
    shutil.copytree(place / "mirror", own)
    (place / "mirror").rename(tmp_path / "away")
    environment = {node_files.DATA_ROOT: str(own)}
    assert placed(config, files, nothing, environment).data_root == str(own)
    older = own / "some" / "data" / "test.jsonl"
    older.write_text(older.read_text().replace('"answer": 0', '"answer": 1'))
    (tmp_path / "away").rename(place / "mirror")
    content = files.data.pack()
    (place / "mirror").rename(tmp_path / "away")
    there = placed(config, files, {"data": content}.__getitem__, environment).data_root
    assert there is not None
    assert (Path(there) / "some" / "data" / "test.jsonl").read_text().count('"answer": 0') == 5
    monkeypatch.setattr(node_files, "MOST_BYTES", files.data.size - 1)
    with pytest.raises(ResourceError, match=r"own, which MOSLD_BENCH_DATA_ROOT names there, lacks some/data/test"):
        placed(config, files, nothing, environment)


def test_definitions_travel_without_the_data_and_the_data_without_the_definitions(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a machine has it keeps, however large that is."""
    config = config_of(place)
    files = listed(place, config)
    content = {"definitions": files.definitions.pack(), "data": files.data.pack()}
    monkeypatch.setattr(node_files, "MOST_BYTES", max(files.definitions.size, files.data.size))
    (place / "tasks").rename(tmp_path / "tasks")
    there = placed(config, files, content.__getitem__, {})
    assert there.data_root == config.data_root
    assert there.task_folders != config.task_folders
    (tmp_path / "tasks").rename(place / "tasks")
    (place / "mirror").rename(tmp_path / "mirror")
    there = placed(config, files, content.__getitem__, {})
    assert there.data_root != config.data_root
    assert there.task_folders == config.task_folders


def test_what_is_too_large_to_travel_is_said_with_what_is_missing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_files, "MOST_BYTES", 100)
    config = config_of(place)
    files = listed(place, config)
    assert (files.definitions.pack(), files.data.pack()) == (None, None)
    assert placed(config, files, nothing, {}) == config
    (place / "mirror").rename(tmp_path / "mirror")
    with pytest.raises(ResourceError, match=r"has no .*/some/data/test\.jsonl as it is .*, and the data sets of"):
        placed(config, files, nothing, {})
    (tmp_path / "mirror").rename(place / "mirror")
    (place / "common.yaml").unlink()
    with pytest.raises(ResourceError, match=r"has no .*/common\.yaml as it is .*, and the task definitions of"):
        placed(config, files, nothing, {})


def test_a_model_in_a_folder_is_found_by_its_name_where_that_is_not_here(tiny: Path, tmp_path: Path) -> None:
    """And taken where it is the same."""
    spec = located(ModelSpec(name=str(tiny / "model")))
    spec = spec.model_copy(update={"revision": content_digest(tiny / "model")})
    assert placed_model(spec, None) == spec
    (tmp_path / "models").mkdir()
    shutil.copytree(tiny / "model", tmp_path / "models" / "model")
    (tiny / "model").rename(tmp_path / "away")
    there = placed_model(spec, str(tmp_path / "models"))
    assert (there, there.folder) == (spec, str(tmp_path / "models" / "model"))
    with pytest.raises(ModelError, match=r"has no model folder .*/model\. Put the model there"):
        placed_model(spec, None)
    with pytest.raises(ModelError, match=r"has no model folder .*, and no .*\. Put the model there"):
        placed_model(spec, str(tmp_path))
    (tmp_path / "models" / "model" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="has another model in"):
        placed_model(spec, str(tmp_path / "models"))


def test_a_model_of_another_revision_is_refused(tiny: Path) -> None:
    (tiny / "model").rename(tiny / "own--model")
    (tiny / "own").mkdir()
    (tiny / "own--model").rename(tiny / "own" / "model")
    write_note(tiny / "own" / "model", {"source": "hub:own/model", "revision": "a"})
    assert placed_model(ModelSpec(name="own/model", revision="a"), str(tiny)).folder is None
    with pytest.raises(ModelError, match="holds the revision 'a', but 'b' is asked for"):
        placed_model(ModelSpec(name="own/model", revision="b"), str(tiny))


def test_the_embedded_study_takes_its_tasks_along_and_no_data(tiny: Path) -> None:
    _, planned, config = prepare(tiny)
    files = NodeFiles.of(config, (trial for trial, _ in planned))
    names = {Path(file.path).name for file in files.definitions.files}
    assert files.data.files == ()
    assert names == {f"{task}.{kind}" for task in ("copy", "count", "other") for kind in ("yaml", "jsonl")}
