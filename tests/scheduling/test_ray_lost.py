"""A real Ray whose head or raylet is killed or stopped in the middle of a trial: the run ends, and says so."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.kills import process_of, working_in
from tests.support.light_ray import NOTES, SECONDS

pytestmark = pytest.mark.slow


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder whose name is short enough for the sockets of Ray."""
    folder = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    (folder / "t").mkdir()
    (folder / "notes").mkdir()
    yield folder
    shutil.rmtree(folder)


def start(place: Path, seconds: float, trials: int = 3) -> subprocess.Popen[str]:
    """A run on one worker whose trials last so long, once its first one has begun."""
    own = {SECONDS: str(seconds), NOTES: str(place / "notes"), "TMPDIR": str(place / "t")}
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.support.light_ray", str(trials), "1"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY, env={**os.environ, **own},
    )  # fmt: skip
    while not list((place / "notes").iterdir()):
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.2)
    return driver


@pytest.mark.parametrize("victim", ["head", "raylet"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_ray_that_is_dead_or_silent_is_found_out_within_a_minute(
    place: Path, victim: str, number: signal.Signals
) -> None:
    driver = start(place, 600)
    process = process_of(victim, driver.pid)
    assert process != driver.pid
    os.kill(process, number)
    began = time.monotonic()
    out, _ = driver.communicate(timeout=120)
    assert time.monotonic() - began < 90  # a minute until it is known, and then the end
    assert driver.returncode == 1, out
    assert "\nlost: Ray is lost: its " in out
    assert "Traceback" not in out
    assert list((place / "t").iterdir()) == []
    assert list(working_in(place)) == []


def test_a_ray_that_is_started_here_listens_for_this_machine_alone(place: Path) -> None:
    driver = start(place, 10, trials=1)
    sockets = {
        str(link.readlink())
        for process in working_in(place)
        for link in Path("/proc", process.split()[1], "fd").iterdir()
        if link.is_symlink()
    }
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                listening.append(local.rpartition(":")[0])
    out, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, out
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert len(listening) >= 3
    assert set(listening) <= loopback
