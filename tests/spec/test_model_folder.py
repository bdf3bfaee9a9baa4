"""Models in folders: one folder is one model however its path is written, and another once a file of it changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from mosld_bench.errors import BadFileError, ModelError
from mosld_bench.spec import model_folder
from mosld_bench.spec.model_folder import content_digest, located
from mosld_bench.spec.trial import ModelSpec
from mosld_bench.spec.workspace import Workspace
from tests.spec.tiny import tiny_study


def ids(root: Path, name: str | dict[str, str]) -> list[str]:
    """The ids of the tiny study's trials with another model."""
    study = tiny_study(root, model={"name": name} if isinstance(name, str) else name)
    return [trial.id for trial in study.plan(Workspace(root, root))]


def test_every_spelling_of_a_folder_is_one_model(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny)
    monkeypatch.setenv("HOME", str(tiny))
    (tiny / "link").symlink_to(tiny / "model")
    spellings = ["model", "./model", "model/", f"{tiny}/model", f"{tiny}/model/", "reports/../model", "link", "~/model"]
    reference = ids(tiny, spellings[0])
    for name in spellings[1:]:
        assert ids(tiny, name) == reference, name
    copy = tiny / "elsewhere" / "model"
    shutil.copytree(tiny / "model", copy)
    assert ids(tiny, str(copy)) == reference
    trial = tiny_study(tiny).plan(Workspace(tiny, tiny))[0]
    assert trial.model == ModelSpec(name="model", revision=content_digest(copy))
    assert trial.model.folder == str((tiny / "model").resolve())
    # Where the folder is not, its name and digest are enough to find its records.
    shutil.rmtree(tiny / "model")
    assert ids(tiny, {"name": "model", "revision": str(trial.model.revision)}) == reference


def test_where_a_folder_lies_is_in_no_record(tiny: Path) -> None:
    trial = tiny_study(tiny).plan(Workspace(tiny, tiny))[0]
    assert str(tiny) not in trial.model_dump_json()
    assert set(json.loads(trial.model_dump_json())["model"]) == {"name", "revision"}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_with_another_file_is_another_model(name: str, tiny: Path) -> None:
    before = ids(tiny, str(tiny / "model"))
    file = tiny / "model" / name
    at = file.stat().st_mtime_ns
    file.write_bytes(file.read_bytes() + b" ")
    assert set(ids(tiny, str(tiny / "model"))).isdisjoint(before)
    file.write_bytes(file.read_bytes()[:-1])
    os.utime(file, ns=(at, at))
    assert ids(tiny, str(tiny / "model")) == before
    (tiny / "model" / "notes.bin").write_bytes(b"of no account")
    (tiny / "model" / model_folder.NOTE).write_text("{}")
    assert ids(tiny, str(tiny / "model")) == before


def test_the_digest_of_large_files_is_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSLD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_folder, "_LARGE", 1)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    digest = content_digest(folder)
    (kept,) = (tmp_path / "cache" / "digests").iterdir()
    assert kept.read_text() == digest
    model_folder._digest.cache_clear()
    kept.write_text("0123456789ab")
    assert content_digest(folder) == "0123456789ab"
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("no folder")
    model_folder._digest.cache_clear()
    assert content_digest(folder) == digest


def test_other_names_are_the_hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "some" / "model"
    folder.mkdir(parents=True)
    for spec in (ModelSpec(name="embedded"), ModelSpec(name="some/model"), ModelSpec(name="x" * 300)):
        assert located(spec).folder is None  # nothing there, or a folder that holds no model
    (folder / "config.json").write_text("{}")
    assert located(ModelSpec(name="some/model")).folder == str(folder)
    assert located(ModelSpec(name="some/model", revision="v1")).folder is None
    (folder / model_folder.NOTE).write_text("{}")  # as fetch leaves it: the hub's model, wherever it lies
    assert located(ModelSpec(name="some/model")) == ModelSpec(name="some/model")
    assert located(ModelSpec(name="some/model")).folder is None
    assert located(ModelSpec(name="./some/model")).folder == str(folder)


@pytest.mark.parametrize("name", ["./gone", "/", "~nobody-of-that-name/model", "/" + "x" * 5000, "./a\0b", ".."])
def test_a_path_without_a_model_is_a_sentence(name: str) -> None:
    with pytest.raises(ModelError, match=r"There is no model folder|has no config\.json") as error:
        located(ModelSpec(name=name))
    assert len(str(error.value)) < 500


def test_two_folders_of_one_name_are_refused(tiny: Path) -> None:
    shutil.copytree(tiny / "model", tiny / "other" / "model")
    with pytest.raises(BadFileError, match="lists two models of one name"):
        tiny_study(tiny, models=[{"name": str(tiny / "model")}, {"name": str(tiny / "other" / "model")}])
