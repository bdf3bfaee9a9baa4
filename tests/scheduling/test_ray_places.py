"""What Ray needs of a machine: a folder that is short enough for its sockets, and an address that answers in time."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mosld_bench.errors import ResourceError
from mosld_bench.scheduling import ray_places
from mosld_bench.scheduling.ray_places import TempFolder, check_address, temp_base
from mosld_bench.scratch import sweep


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that takes the place of /tmp."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr(ray_places, "_SHORT", (str(folder / "gone"), str(folder)))
    return folder


def test_a_place_is_taken_if_sockets_fit_in_it() -> None:
    assert temp_base({}) == temp_base({"TMPDIR": "/tmp"}) == Path("/tmp")
    assert temp_base({"RAY_TMPDIR": "/var/tmp", "TMPDIR": "/tmp"}) == Path("/var/tmp")
    with TempFolder({}) as folder:
        assert len(f"/tmp/x{Path(folder.path).name}") <= ray_places._MAX_SOCKET - ray_places._WITHIN_SESSION
        assert Path(folder.path).stat().st_mode & 0o777 == 0o700
    session = "session_2026-01-31_23-59-59_123456_1234567"
    assert len(f"/{session}/sockets/plasma_store") == ray_places._WITHIN_SESSION


@pytest.mark.parametrize("kind", ["long", "gone", "file"])
@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_another_folder_is_made_where_that_is_of_no_use(kind: str, variable: str, short: Path, tmp_path: Path) -> None:
    place = tmp_path / ("x" * 100 if kind == "long" else kind)
    if kind == "long":
        place.mkdir()
    elif kind == "file":
        place.write_text("")
    with TempFolder({variable: str(place)}) as folder:
        assert Path(folder.path).parent == short
        assert Path(folder.path).is_dir()
    assert list(short.iterdir()) == []


def test_no_folder_at_all_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_places, "_SHORT", (str(tmp_path / "gone"),))
    with pytest.raises(ResourceError, match=r"TMPDIR is none \(TMPDIR=.*gone\).*Set TMPDIR .*--executor inline"):
        TempFolder({"TMPDIR": str(tmp_path / "gone")})


def test_what_still_works_in_the_folder_is_ended_with_it() -> None:
    with TempFolder({}) as folder:
        inside = [sys.executable, "-c", f"import time; file = open({folder.path + '/log'!r}, 'w'); time.sleep(600)"]
        worker = subprocess.Popen(inside)
        outside = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        while not Path(folder.path, "log").exists():
            assert worker.poll() is None
    assert worker.wait(timeout=10) == -signal.SIGKILL
    assert outside.poll() is None
    assert not Path(folder.path).exists()
    outside.communicate(b"\n", timeout=10)


@pytest.mark.parametrize("by", [lambda short: TempFolder({}).remove(), sweep], ids=["the next run's folder", "a sweep"])
@pytest.mark.parametrize("opened", [True, False], ids=["a file open", "no file open yet"])
def test_what_a_killed_process_left_is_removed_with_what_works_in_it(
    by: Callable[[Path], object], opened: bool, short: Path
) -> None:
    """A driver that was killed: its folder is there, and a process that it had started writes to it, or will."""
    code = (
        "import os, subprocess, sys\n"
        "from mosld_bench.scheduling.ray_places import TempFolder\n"
        "from mosld_bench.scheduling import ray_places\n"
        f"ray_places._SHORT = ({str(short)!r},)\n"
        "folder = TempFolder({}).path\n"
        f"log = open(folder + '/log', 'w') if {opened} else subprocess.DEVNULL\n"
        "code = 'import time; time.sleep(600)'\n"
        "child = subprocess.Popen([sys.executable, '-c', code, '--dir=' + folder], stdout=log, stderr=log)\n"
        "print(folder, child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    left, child = done.stdout.split()
    other = short / f"mosld-{(int(left.split('-')[-3], 16) + 1) % 2**16:04x}-1234567-ray"  # as of another machine
    other.mkdir()
    assert Path(left).is_dir()
    assert Path("/proc", child).is_dir()
    by(short)
    assert {path for path in short.iterdir() if path.is_dir()} == {other}
    while Path("/proc", child).exists() and "Z" not in Path("/proc", child, "stat").read_text().split()[2]:
        pass


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A socket on this machine that takes connections, and answers none."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        yield listening


def answering(listening: socket.socket, answer: bytes) -> str:
    """The address of ``listening``, which answers the next connection by ``answer``."""

    def serve() -> None:
        connection, _ = listening.accept()
        with closing(connection):
            connection.recv(100)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_answers_is_a_cluster(answer: bytes, server: socket.socket) -> None:
    address = answering(server, answer)
    with pytest.raises(ResourceError, match=rf"answers at --ray-address {address}"):
        check_address(address, {})


def test_a_server_of_grpc_is_gone_on_with(server: socket.socket) -> None:
    check_address(answering(server, b"\0\0\0\4\0\0\0\0\0"), {})
    check_address("ray://" + answering(server, b"\0\0\6\4\0\0\0\0\0......"), {})


def test_a_dead_address_is_said_in_time(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_places, "_CONNECT_SECONDS", 0.2)
    silent = f"127.0.0.1:{server.getsockname()[1]}"
    start = time.monotonic()
    with pytest.raises(ResourceError, match="timed out"):
        check_address(silent, {})
    assert time.monotonic() - start < 5
    server.close()
    with pytest.raises(ResourceError, match=rf"No Ray cluster answers at --ray-address {silent}: Connection refused"):
        check_address(silent, {})


@pytest.mark.parametrize(
    "address", ["", "x", "local", "host", "host:", ":6379", "host:port", "host:0", "host:99999999"]
)
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(ResourceError, match="--ray-address takes HOST:PORT"):
        check_address(address, {})


def test_auto_is_the_address_that_ray_would_find(tmp_path: Path, server: socket.socket) -> None:
    check_address("auto", {"TMPDIR": str(tmp_path)})  # nothing is noted: Ray itself looks
    dead = f"127.0.0.1:{server.getsockname()[1]}"
    server.close()
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(dead)
    for environment in ({"TMPDIR": str(tmp_path)}, {"RAY_ADDRESS": dead}):
        with pytest.raises(ResourceError, match=rf"--ray-address auto \({dead}\): Connection refused"):
            check_address("auto", environment)
