"""What a process left aside goes with the next one, and only that."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mosld_bench.scratch import prefix, scratch_folder, sweep, sweep_temporary


@pytest.fixture
def dead() -> str:
    """What the names of a process began with that is dead."""
    code = "from mosld_bench.scratch import prefix; print(prefix())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path: Path, dead: str) -> None:
    machine = dead.split("-")[1]
    left = [f".{dead}01234567", f"{dead}abcdefgh", f"trial/.{dead}x", f"{dead}ray/session/log"]
    stays = [
        f".{prefix()}01234567", f"{prefix()}abc", "record.json", "trial/record.json", ".hidden", "mosld-notes",
        f"mosld-{(int(machine, 16) + 1) % 2**16:04x}-{dead.split('-')[2]}-other-machine", f"trial/deeper/.{dead}x",
        f"mosld-{machine}-{os.getppid()}-alive", f"mosld-{machine}--x", f"mosld-{machine}-99999999999999999999-x",
    ]  # fmt: skip
    for name in (*left, *stays):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / f"{dead}link").symlink_to(tmp_path / "trial")
    sweep(tmp_path, deep=True)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(stays)
    assert not (tmp_path / f"{dead}link").is_symlink()
    sweep(tmp_path / "gone", deep=True)
    sweep(tmp_path / "record.json", deep=True)


def test_only_what_is_the_users_own_is_removed(tmp_path: Path, dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{dead}x").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    sweep(tmp_path)
    assert (tmp_path / f"{dead}x").is_dir()


def test_a_folder_for_a_while_is_gone_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"{dead}abcdefgh" / "within").mkdir(parents=True)
    with scratch_folder() as folder:
        assert folder.parent == tmp_path
        sweep_temporary()
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []
