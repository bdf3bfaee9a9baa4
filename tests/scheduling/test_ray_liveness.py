"""A Ray that is dead or silent is found out, and no call into it is waited for longer than that."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest

from mosld_bench.errors import LostError
from mosld_bench.scheduling import ray_liveness
from mosld_bench.scheduling.ray_liveness import Calls, Liveness, Process, Silences, within

HERE, THERE = Process("here", 1), Process("there", 2)


@pytest.mark.parametrize(
    ("rounds", "seconds"),
    [
        ([], 0),
        ([(0, True), (90, True)], 0),
        ([(0, False), (90, False)], 0),  # it has never answered: no connection to it may be allowed
        ([(0, True), (5, False)], 0),
        ([(0, True), (5, False), (10, False), (35, False)], 30),
        ([(0, True), (5, False), (10, True), (15, False), (20, False)], 5),
        ([(0, True), (10_000, False), (10_005, False)], 5),  # nobody asked meanwhile, as where this machine slept
    ],
)
def test_silence_is_what_was_asked_and_not_answered(rounds: list[tuple[float, bool]], seconds: float) -> None:
    silences = Silences()
    for now, answered in rounds:
        silences.note({HERE: answered, THERE: True}, now)
    assert silences.seconds(HERE) == seconds
    assert silences.seconds(THERE) == 0


class Server:
    """A process that answers as one of Ray does, until it is told to be silent, or to be gone."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.process = Process(*self._listening.getsockname()[:2])
        self._kept: list[socket.socket] = []
        self.answers = True
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._kept.append(connection)
            if self.answers:
                connection.sendall(b"\0\0\0\4\0\0\0\0\0")

    def close(self) -> None:
        with suppress(OSError):  # it is closed by now
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._kept:
            connection.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """With silences that count at once."""
    monkeypatch.setattr(ray_liveness, "ASK_SECONDS", 0.02)
    monkeypatch.setattr(ray_liveness, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(ray_liveness, "SILENT_SECONDS", 0.1)
    with closing(Server()) as server:
        yield server


def silence(server: Server) -> None:
    server.answers = False


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def answered(liveness: Liveness, process: Process) -> bool:
    return process in liveness._silences._since


@pytest.mark.parametrize("end", [Server.close, silence])
def test_a_process_that_is_gone_or_silent_is_lost(server: Server, end: Callable[[Server], None]) -> None:
    with closing(Liveness({"its head": server.process})) as liveness, Calls(liveness.lost) as call:
        until(lambda: answered(liveness, server.process))
        assert liveness.lost() is None
        assert call(max, 3, 4) == 4
        end(server)
        host, port = server.process
        with pytest.raises(LostError, match=rf"^Ray is lost: its head \({host}:{port}\) has not answered for "):
            call(threading.Event().wait)  # a call that does not come back
        assert LostError.exit_code == 1


def test_others_are_asked_as_well_and_nothing_is_lost_with_them(server: Server) -> None:
    with closing(Server()) as other, closing(Liveness({"its head": server.process})) as liveness:
        liveness.ask([other.process])
        until(lambda: answered(liveness, other.process))
        silence(other)
        until(lambda: liveness.silent(other.process))
        assert liveness.lost() is None
        assert not liveness.silent(server.process)


def test_a_call_returns_and_raises_what_it_returns_and_raises() -> None:
    with Calls(lambda: None) as call:
        assert call(sorted, [2, 1], reverse=False) == [1, 2]
        with pytest.raises(ZeroDivisionError):
            call(divmod, 1, 0)
        assert call(threading.get_ident) != threading.get_ident()


def test_a_call_that_hangs_where_all_else_is_well_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_liveness, "CALL_SECONDS", 0.1)
    monkeypatch.setattr(ray_liveness, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(ray_liveness, "_LOOK_SECONDS", 0.05)
    over = threading.Event()
    with Calls(lambda: None) as call, pytest.raises(LostError, match="a call into it has not come back for "):
        call(over.wait)
    over.set()


def test_a_function_is_given_its_time_and_no_more() -> None:
    over = threading.Event()
    assert within(20, over.is_set)
    assert not within(0.05, over.wait)
    over.set()
