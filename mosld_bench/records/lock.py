"""One run at a time on a study's folder of records: who holds it is written in it.

The system gives up the lock of a process that died, so that nobody has to remove one. Where a folder is shared between
machines its file system may not tell one machine of the locks of another. A holder therefore also counts in the note
beside its lock: while the count goes on it lives.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel

from mosld_bench.errors import BenchError
from mosld_bench.records.provenance import now
from mosld_bench.scratch import replace_file
from mosld_bench.spec.plain_file import read_kept

_LOCK, _NOTE = ".lock", ".held.json"
#: Between two counts of a holder, and how long another machine's may stand still before it counts as dead.
_COUNT_SECONDS, _DEAD_SECONDS = 10.0, 30.0
_LOOK_SECONDS = 0.5


class HeldError(BenchError):
    """A folder that another run holds."""


class Holder(BaseModel, frozen=True):
    """Who holds a folder."""

    host: str
    process: int
    command: str
    since: str
    count: int = 0

    @classmethod
    def me(cls, command: str) -> Holder:
        """This process, from now on."""
        return cls(host=socket.gethostname(), process=os.getpid(), command=command, since=now())

    @classmethod
    def noted(cls, folder: Path) -> Holder | None:
        """The one of the note in ``folder``; None where there is none that can be read."""
        return read_kept(cls, folder / _NOTE)

    def note(self, folder: Path) -> None:
        """Write the note, as far as the system lets it be written: the lock is what counts."""
        with suppress(OSError):
            replace_file(folder / _NOTE, self.model_dump_json().encode())


@contextmanager
def held(folder: Path, command: str, *, say: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """The folder of a study's records, for this run alone; ``command``: what another run is told that holds it.

    ``say``: prints a sentence where one has to wait. A folder that is not there is made, with those above, and removed
    if it is empty at the end; one that cannot be written is not locked, as nothing is going to be written. Raises
    HeldError where another run holds it.
    """
    lock = FileLock(folder / _LOCK)
    absent = [place for place in (folder, *folder.parents) if not place.exists()]
    with suppress(OSError):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise _held_by(folder, Holder.noted(folder)) from None
    if not lock.is_locked:
        yield
        return
    try:
        _await_other_machine(folder, say)
    except BaseException:
        lock.release()
        raise
    me, over = Holder.me(command), threading.Event()
    me.note(folder)
    counting = threading.Thread(target=_count, args=(folder, me, over), daemon=True)
    counting.start()
    try:
        yield
    finally:
        over.set()
        counting.join()
        with suppress(OSError):
            (folder / _NOTE).unlink(missing_ok=True)
            (folder / _LOCK).unlink(missing_ok=True)  # while it is held: who waits for it sees that it is gone
        lock.release()
        with suppress(OSError):
            for place in absent or [folder]:
                place.rmdir()


def _count(folder: Path, holder: Holder, over: threading.Event) -> None:
    """Count in the note until it is over."""
    while not over.wait(_COUNT_SECONDS):
        holder = holder.model_copy(update={"count": holder.count + 1})
        holder.note(folder)


def _await_other_machine(folder: Path, say: Callable[[str], None]) -> None:
    """Raises HeldError where a run on another machine lives whose lock this one does not see."""
    before = Holder.noted(folder)
    if before is None or before.host == socket.gethostname():
        return  # the system of this machine has said that its process is dead
    say(f"A run on {before.host} has held {folder} since {before.since}; looking whether it still does …")
    for _ in range(int(_DEAD_SECONDS / _LOOK_SECONDS)):
        time.sleep(_LOOK_SECONDS)
        found = Holder.noted(folder)
        if found != before:
            if found is None:
                return
            raise _held_by(folder, found)


def _held_by(folder: Path, holder: Holder | None) -> HeldError:
    who = "another run"
    if holder is not None:
        where = "this machine" if holder.host == socket.gethostname() else holder.host
        command = "".join(character if character.isprintable() else "?" for character in holder.command[:300])
        who = f"process {holder.process} on {where} since {holder.since} ({command})"
    return HeldError(
        f"{folder} is held by {who}. Two runs on one folder would do the same work twice: wait for its end, end it, or "
        f"give this run a folder of its own by --name."
    )
