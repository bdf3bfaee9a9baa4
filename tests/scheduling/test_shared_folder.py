"""A folder that the workers of a machine share: made once, kept while one of them lives, and then removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mosld_bench.errors import ResourceError
from mosld_bench.scheduling.shared_folder import shared_folder
from tests.conftest import REPOSITORY

#: Uses the folder that it is told, says whether it made it, and does so until it reads the end of its input.
USER = """
import sys
from mosld_bench.scheduling.shared_folder import shared_folder
made = []
def fill(folder):
    made.append(folder)
    (folder / "file").write_text("whole")
folder = shared_folder(sys.argv[1], fill)
print((folder / "file").read_text(), len(made), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TMPDIR."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    """Those that `user` starts, which end with the test."""
    with ExitStack() as stack:
        yield stack


def user(name: str, processes: ExitStack) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", USER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    processes.enter_context(process)
    processes.callback(process.kill)
    return process


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def left(temporary: Path) -> set[str]:
    return {path.name for path in (temporary / f"mosld-files-{os.geteuid()}").iterdir()}


def test_one_makes_it_for_all_and_the_last_one_removes_it(temporary: Path, processes: ExitStack) -> None:
    users = [user("a", processes) for _ in range(3)]
    assert sorted(map(said, users)) == ["whole 0", "whole 0", "whole 1"]
    for number, process in enumerate(users):
        assert left(temporary) == {"a", "a.lock"}, number
        process.communicate(timeout=60)
    assert left(temporary) == set()


def test_what_killed_processes_leave_goes_with_the_next_one(temporary: Path, processes: ExitStack) -> None:
    killed, lives = user("a", processes), user("b", processes)
    assert {said(killed), said(lives)} == {"whole 1"}
    killed.send_signal(signal.SIGKILL)
    killed.wait(timeout=60)
    assert left(temporary) == {"a", "a.lock", "b", "b.lock"}
    another = user("c", processes)
    assert said(another) == "whole 1"
    assert left(temporary) == {"b", "b.lock", "c", "c.lock"}


def test_what_was_not_made_whole_is_made_anew(temporary: Path, processes: ExitStack) -> None:
    def half(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        shared_folder("a", half)
    process = user("a", processes)
    assert said(process) == "whole 1"


def test_a_place_that_others_write_to_is_refused(temporary: Path) -> None:
    place = temporary / f"mosld-files-{os.geteuid()}"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(ResourceError, match="is no folder that this user alone writes to"):
        shared_folder("a", lambda folder: None)
    place.rmdir()
    place.symlink_to(temporary)
    with pytest.raises(ResourceError, match="is no folder that this user alone writes to"):
        shared_folder("a", lambda folder: None)
