"""A download is whole or not there, and what is there of it is gone on with."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from mosld_bench.inputs.download import aside


def test_a_folder_takes_its_name_when_all_is_there(tmp_path: Path) -> None:
    target = tmp_path / "organisation" / "model"
    with aside(target, None) as folder:
        assert folder is not None
        (folder / "weights").write_text("whole")
        assert not target.exists()
    assert (target / "weights").read_text() == "whole"
    with aside(target, "v1") as folder:
        assert folder is None


def test_what_an_interrupted_download_has_left_waits_for_the_same_revision(tmp_path: Path) -> None:
    target = tmp_path / "model"

    def interrupted(revision: str, file: str) -> list[str]:
        """The files that were there at the start of a download that breaks after ``file``; no file if it is empty."""
        before: list[str] = []
        with suppress(KeyboardInterrupt), aside(target, revision) as folder:
            assert folder is not None
            before += sorted(path.name for path in folder.iterdir())
            if file:
                (folder / file).write_text("half")
            raise KeyboardInterrupt
        assert not target.exists()
        return before

    assert interrupted("v1", "first") == []
    assert interrupted("v1", "second") == ["first"]
    assert interrupted("v2", "") == []
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [".fetch-model-v1"]  # v2 left nothing
