"""Workspaces: where the folders are looked for, and how a study is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY


def test_the_given_folder_must_hold_what_goes_in(tiny: Path, tmp_path: Path) -> None:
    assert Workspace.find(tiny) == Workspace(tiny, tiny)
    (tmp_path / "half" / "methods").mkdir(parents=True)
    with pytest.raises(BenchError, match="half has no 'tasks' folder"):
        Workspace.find(tmp_path / "half")


def test_the_current_folder_comes_before_the_checkout(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny)
    assert Workspace.find() == Workspace(tiny, tiny)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Workspace.find() == Workspace(REPOSITORY, REPOSITORY)


def test_a_study_of_the_users_own_wins_over_one_that_comes_along(tiny: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    for name in ("tiny", "mine"):
        (outputs / "reports" / name).mkdir(parents=True)
        (outputs / "reports" / name / "study.yaml").write_text("question: Mine?\n")
    workspace = Workspace(tiny, outputs)
    assert workspace.studies() == {name: outputs / "reports" / name / "study.yaml" for name in ("tiny", "mine")}
    assert (workspace.methods, workspace.results) == (tiny / "methods", outputs / "results")


def test_a_study_by_name_by_folder_and_by_file(tiny: Path) -> None:
    workspace, file = Workspace(tiny, tiny), tiny / "reports" / "tiny" / "study.yaml"
    assert workspace.study_file("tiny") == workspace.study_file(str(file.parent)) == file
    assert workspace.study_file(str(file)) == file
    with pytest.raises(UnknownNameError, match="no study named 'tinny'\\. Did you mean 'tiny'"):
        workspace.study_file("tinny")
