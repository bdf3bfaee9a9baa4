"""One run at a time on a study's folder: who holds it is said, and what a dead one left is taken over."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mosld_bench.records import lock
from mosld_bench.records.lock import HeldError, Holder, held

HOLD = """
import sys
from pathlib import Path
from mosld_bench.records.lock import held
with held(Path(sys.argv[1]), "mosld-bench run mine --seeds 0"):
    print("held", flush=True)
    input()
"""


def other(folder: Path) -> subprocess.Popen[str]:
    """Another process, which holds ``folder`` until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_who_holds_a_folder_is_said_and_it_is_free_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    with other(folder) as process:
        with pytest.raises(HeldError) as caught, held(folder, "me"):
            pass
        since = json.loads((folder / ".held.json").read_text())["since"]
        assert str(caught.value).startswith(
            f"{folder} is held by process {process.pid} on this machine since {since} (mosld-bench run mine --seeds 0)."
        )
        assert HeldError.exit_code == 2
        process.communicate("\n", timeout=60)
    assert not folder.exists()
    with held(folder, "me"):
        (folder / "record.json").write_text("")
    assert [path.name for path in folder.iterdir()] == ["record.json"]


def test_a_killed_holder_is_taken_over_at_once(tmp_path: Path) -> None:
    with other(tmp_path / "mine") as process:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert len(list((tmp_path / "mine").iterdir())) == 2  # it could remove nothing
    with held(tmp_path / "mine", "me", say=pytest.fail):
        noted = Holder.noted(tmp_path / "mine")
        assert noted is not None
        assert (noted.process, noted.command) == (os.getpid(), "me")
    assert not (tmp_path / "mine").exists()


def test_two_in_one_process_are_two(tmp_path: Path) -> None:
    second = rf"process {os.getpid()} on this machine"
    with held(tmp_path, "first"), pytest.raises(HeldError, match=second), held(tmp_path, "second"):
        pass
    with held(tmp_path, "third"):
        pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_COUNT_SECONDS", 0.02)
    monkeypatch.setattr(lock, "_DEAD_SECONDS", 0.5)
    monkeypatch.setattr(lock, "_LOOK_SECONDS", 0.05)


ELSEWHERE = Holder(
    host="node-7", process=12, command="mosld-bench run \x1b[2Jmine", since="2026-01-01T00:00:00+00:00", count=5
)


def test_another_machine_whose_lock_is_not_seen_lives_while_it_counts(tmp_path: Path, quick: None) -> None:
    """As on a file system that tells one machine nothing of the locks of another."""
    ELSEWHERE.note(tmp_path)
    over = threading.Event()
    counting = threading.Thread(target=lock._count, args=(tmp_path, ELSEWHERE, over))
    counting.start()
    said: list[str] = []
    try:
        who = r"held by process 12 on node-7 since .* \(mosld-bench run \?\[2Jmine\)"
        with pytest.raises(HeldError, match=who), held(tmp_path, "me", say=said.append):
            pass
    finally:
        over.set()
        counting.join()
    assert len(said) == 1
    assert (tmp_path / ".held.json").exists()  # it is not ours


@pytest.mark.parametrize("end", ["killed", "ends"])
def test_another_machine_that_counts_no_more_is_taken_over(
    tmp_path: Path, quick: None, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ELSEWHERE.note(tmp_path)
    if end == "ends":
        monkeypatch.setattr(time, "sleep", lambda seconds: (tmp_path / ".held.json").unlink(missing_ok=True))
    with held(tmp_path, "me"):
        while (noted := Holder.noted(tmp_path)) is None or noted.count < 3:
            assert noted is None or noted.host == socket.gethostname() or noted == ELSEWHERE
    assert not tmp_path.exists()  # it was empty


@pytest.mark.parametrize("note", [b"", b"\xff", b"[]", b'{"host": "x"}', b'{"host":1,"process":"x"}'])
def test_a_note_that_says_nothing_is_none(tmp_path: Path, note: bytes) -> None:
    (tmp_path / ".held.json").write_bytes(note)
    assert Holder.noted(tmp_path) is None
    with held(tmp_path, "me"):
        pass


def test_what_cannot_be_written_is_not_locked(tmp_path: Path) -> None:
    """A report of records on a medium that is read alone; what is to be written there is refused elsewhere."""
    (tmp_path / "file").write_text("")
    with held(tmp_path / "file", "me"), held(tmp_path / "file" / "below", "me"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
