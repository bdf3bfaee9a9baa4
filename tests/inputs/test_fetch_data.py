"""Data sets for a machine without network: what is fetched, where it goes, and what is never left half done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.errors import DataError, ModelError
from mosld_bench.inputs.fetch_data import Part, _complete, fetch_data
from mosld_bench.inputs.fetch_model import fetch_model
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import ModelSpec
from tests.conftest import REPOSITORY

FILES = TaskFiles.scan((REPOSITORY / "tasks",))
CARD = """---
configs:
- config_name: first
  data_files: [{split: test, path: first/test-*}]
- config_name: main
  data_files: [{split: train, path: main/train-*}, {split: test, path: main/test-*}]
---
About the data: nothing --- or little.
"""


class Hub:
    """Repositories as path -> text; breaks after ``breaks`` files, and is out of reach when ``down``."""

    def __init__(self, repositories: Mapping[str, Mapping[str, str]]) -> None:
        self.repositories, self.calls = dict(repositories), list[dict[str, Any]]()
        self.breaks, self.down = 0, False

    def download(self, name: str, local_dir: Path, allow_patterns: list[str], **options: Any) -> None:
        self.calls.append({"name": name, "patterns": allow_patterns, **options})
        if self.down:
            if any(local_dir.iterdir()) and not options.get("dry_run"):
                return  # as the client does: what is there has to do
            raise ConnectionError("no route")
        paths = [p for p in self.repositories[name] if any(fnmatch(p, pattern) for pattern in allow_patterns)]
        for number, path in enumerate([] if options.get("dry_run") else paths, 1):
            (local_dir / path).parent.mkdir(parents=True, exist_ok=True)
            (local_dir / path).write_text(self.repositories[name][path])
            if number == self.breaks:
                raise ConnectionError("the line broke")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Hub]:
    """Serve repositories, named ORGANISATION__NAME, as path -> text or as paths of empty files."""

    def serve(**repositories: Mapping[str, str] | Sequence[str]) -> Hub:
        server = Hub(
            {
                name.replace("__", "/"): files if isinstance(files, Mapping) else dict.fromkeys(files, "")
                for name, files in repositories.items()
            }
        )
        monkeypatch.setattr("huggingface_hub.snapshot_download", server.download)
        return server

    return serve


def definition(dataset: str = "some/set", name: str | None = "main", **more: Any) -> dict[str, Any]:
    return {"dataset_path": dataset, "dataset_name": name, "training_split": "train", "test_split": "test"} | more


def below(folder: Path) -> set[str]:
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in files if not name.rsplit("/", 1)[-1].startswith(".")}


MAIN = ["README.md", "main/train-0.parquet", "main/test-0.parquet"]


def test_the_folder_of_the_name_and_no_other(tmp_path: Path, hub: Callable[..., Hub]) -> None:
    served = hub(some__set=[*MAIN, "first/test-0.parquet", "script.py"])
    assert fetch_data({"a": definition(dataset_kwargs={"revision": "v2"})}, tmp_path) == [tmp_path / "some" / "set"]
    assert below(tmp_path) == {f"some/set/{name}" for name in [*MAIN, "provenance.json"]}
    assert (served.calls[0]["repo_type"], served.calls[0]["revision"]) == ("dataset", "v2")
    note = json.loads((tmp_path / "some" / "set" / "provenance.json").read_text())
    assert note == {"source": "hub:datasets/some/set", "revision": "v2", "patterns": ["data/*", "main/*"]}


def test_a_data_set_is_asked_for_once_for_all_its_tasks(tmp_path: Path, hub: Callable[..., Hub]) -> None:
    tasks = ["arc_easy", "arc_challenge", "mctest", "emb_world"]
    arc = [f"ARC-{kind}/{split}-0.parquet" for kind in ("Easy", "Challenge") for split in ("train", "test")]
    mctest = [f"mc{n}/{split}-0.parquet" for n in (160, 500) for split in ("train", "validation", "test")]
    served = hub(allenai__ai2_arc=arc, sagnikrayc__mctest=[*mctest, "mc500/more.json"])
    lines: list[str] = []
    fetch_data({task: FILES.config(task) for task in tasks}, tmp_path, lines.append)
    assert [call["name"] for call in served.calls] == ["allenai/ai2_arc", "sagnikrayc/mctest"]
    assert {"ARC-Easy/*", "ARC-Challenge/*", "README.md"} <= set(served.calls[0]["patterns"])
    part = Part.of("mctest", FILES.config("mctest") or {})
    assert part is not None
    assert set(served.calls[1]["patterns"]) == {"README.md", *part.patterns}
    assert below(tmp_path / "allenai" / "ai2_arc") == {*arc, "provenance.json"}
    assert below(tmp_path / "sagnikrayc" / "mctest") == {*mctest, "provenance.json"}
    fetch_data({task: FILES.config(task) for task in tasks}, tmp_path, lines.append)
    assert len(served.calls) == 2
    assert "allenai/ai2_arc is there" in lines


def test_without_a_name_or_where_the_name_is_no_folder_all_that_could_be_data(
    tmp_path: Path, hub: Callable[..., Hub]
) -> None:
    hub(some__set=["README.md", "x.parquet", "deep/y.jsonl", "z.csv", "weights.bin", "code.py"])
    fetch_data({"a": definition(name=None)}, tmp_path / "without")
    fetch_data({"a": definition()}, tmp_path / "with")
    files = {"README.md", "x.parquet", "deep/y.jsonl", "z.csv", "provenance.json"}
    assert below(tmp_path / "without" / "some" / "set") == below(tmp_path / "with" / "some" / "set") == files


def test_what_a_folder_lacks_is_added(tmp_path: Path, hub: Callable[..., Hub]) -> None:
    served = hub(some__set={**dict.fromkeys(MAIN, ""), "first/test-0.parquet": "", "README.md": CARD})
    card = tmp_path / "some" / "set" / "README.md"
    fetch_data({"a": definition()}, tmp_path)
    assert "first" not in card.read_text()
    assert card.read_text().endswith("---\nAbout the data: nothing --- or little.\n")
    fetch_data({"a": definition(), "b": definition(name="first", training_split=None)}, tmp_path)
    assert served.calls[-1]["patterns"] == ["README.md", "data/*", "first/*"]
    assert card.read_text() == CARD
    assert below(card.parent) == {*MAIN, "first/test-0.parquet", "provenance.json"}
    done = len(served.calls)
    fetch_data({"a": definition(), "b": definition(name="first", training_split=None)}, tmp_path)
    assert len(served.calls) == done


def test_a_mirror_made_by_hand_is_taken_as_it_is_or_completed(tmp_path: Path, hub: Callable[..., Hub]) -> None:
    served = hub(some__set=MAIN)
    made = tmp_path / "some" / "set"
    (made / "main").mkdir(parents=True)
    (made / "main" / "train.jsonl").write_text("")
    (made / "main" / "test.jsonl").write_text("")
    fetch_data({"a": definition()}, tmp_path)
    assert served.calls == []
    (made / "main" / "test.jsonl").unlink()
    fetch_data({"a": definition()}, tmp_path)
    assert "older files are of unknown origin" in json.loads((made / "provenance.json").read_text())["note"]
    assert "main/test-0.parquet" in below(made)


def test_a_mirror_made_by_hand_lacks_what_is_not_in_it_and_nothing_else(mirror: Path, hub: Callable[..., Hub]) -> None:
    parts = [Part.of(task, FILES.config(task) or {}) for task in FILES.paths]
    mirrored = [part for part in parts if part is not None and (mirror / part.dataset).is_dir()]
    assert len(mirrored) >= 6
    lacking = {part.task for part in mirrored if not _complete(mirror / part.dataset, part)}
    assert lacking == {"dialogsum"}  # its training split is not there


def test_an_interrupted_download_leaves_no_half_data_set_and_is_gone_on_with(
    tmp_path: Path, hub: Callable[..., Hub]
) -> None:
    served = hub(some__set=MAIN)
    served.breaks = 2
    with pytest.raises(DataError, match=r"cannot be reached for the data set 'some/set' of a .* --to DIR"):
        fetch_data({"a": definition()}, tmp_path)
    assert not (tmp_path / "some" / "set").exists()
    served.breaks, served.down = 0, True
    with pytest.raises(DataError, match="cannot be reached"):  # what is there must not pass for the whole
        fetch_data({"a": definition()}, tmp_path)
    assert not (tmp_path / "some" / "set").exists()
    served.down = False
    fetch_data({"a": definition()}, tmp_path)
    assert below(tmp_path) == {f"some/set/{name}" for name in [*MAIN, "provenance.json"]}


def test_out_of_reach_from_the_start_leaves_nothing(tmp_path: Path, hub: Callable[..., Hub]) -> None:
    hub().down = True
    with pytest.raises(DataError, match="carry DIR here, and give --data-root DIR"):
        fetch_data({"a": definition()}, tmp_path)
    assert below(tmp_path) == set()


def test_no_file_to_read_is_a_sentence(tmp_path: Path, hub: Callable[..., Hub]) -> None:
    hub(some__set=["README.md", "script.py"])
    with pytest.raises(DataError, match=r"no files that the task 'a' could read .* scripts that load data are not run"):
        fetch_data({"a": definition()}, tmp_path)
    hub(some__set=MAIN)
    with pytest.raises(DataError, match=r"looked for main/train-\*, other/\*"):
        fetch_data({"a": definition(dataset_kwargs={"data_files": {"train": ["main/train-*", "other/*"]}})}, tmp_path)
    assert not (tmp_path / "some" / "set").exists()


def test_two_things_cannot_share_a_folder(tmp_path: Path, hub: Callable[..., Hub]) -> None:
    hub(some__set=MAIN, some__model=["config.json", "model.safetensors"])
    fetch_data({"a": definition()}, tmp_path)
    with pytest.raises(ModelError, match=r"'some/set' cannot go to .* holds the data set of that name"):
        fetch_model(ModelSpec(name="some/set"), to=tmp_path)
    fetch_model(ModelSpec(name="some/model"), to=tmp_path)
    with pytest.raises(DataError, match=r"'some/model' cannot go to .* which holds a model"):
        fetch_data({"a": definition("some/model")}, tmp_path)
    with pytest.raises(DataError, match=r"at 2 revisions .main by the task a, v2 by the task b"):
        fetch_data({"a": definition(), "b": definition(dataset_kwargs={"revision": "v2"})}, tmp_path)
    with pytest.raises(DataError, match="holds the revision 'main', but 'v2' is asked for"):
        fetch_data({"b": definition(dataset_kwargs={"revision": "v2"})}, tmp_path)


def test_what_is_not_on_the_hub_is_not_asked_for(tmp_path: Path, hub: Callable[..., Hub]) -> None:
    served, lines = hub(), list[str]()
    local = [definition("json"), definition(str(tmp_path)), definition(custom_dataset="!function x.y")]
    tasks = {str(n): config for n, config in enumerate(local)} | {"gsm8k": None}
    assert fetch_data(tasks, tmp_path, lines.append) == []
    assert served.calls == []
    assert lines == ["gsm8k is built into lm-eval and not among the task files: its data are not fetched"]


def test_a_fetched_part_of_a_data_set_loads(
    tmp_path: Path, mirror: Path, hub: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card lists a configuration that was not fetched, and lists it first."""
    card = CARD.replace("main/", "all/").replace("main", "all").replace("split: train", "split: dev")
    card = card.replace("all/train-*", "all/dev-*")
    served = hub(cais__mmlu=["README.md", "all/dev-00000-of-00001.parquet", "all/test-00000-of-00001.parquet"])
    plain = served.download

    def download(name: str, local_dir: Path, **options: Any) -> None:
        plain(name, local_dir, **options)
        for path in [] if options.get("dry_run") else local_dir.glob("all/*"):
            path.write_bytes((mirror / name / "all" / path.name).read_bytes())
        (local_dir / "README.md").write_text(card)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    fetch_data({"mmlu": FILES.config("mmlu")}, tmp_path)
    assert len(TaskLoader([REPOSITORY / "tasks"], tmp_path).get("mmlu").eval_docs) == 14_042
