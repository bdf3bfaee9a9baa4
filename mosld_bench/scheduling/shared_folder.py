"""Folders of one machine that processes of one user share: made once, kept while one of them lives, and then removed.

Who uses a folder holds a lock of the system, which goes with the process however that ends: so the next process on the
machine can tell what nobody uses any more from what others read.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mosld_bench.errors import ResourceError
from mosld_bench.spec.plain_file import is_folder

_LOOK_SECONDS = 0.1  # until the next try, where two processes were in each other's way


def shared_folder(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder ``name`` below TMPDIR, which this process uses as long as it lives.

    ``fill`` is given an empty folder where no other process has made it yet. The last process that uses it removes it;
    where that one was killed, the next one that calls this does. Raises ResourceError where the place is another
    user's, and whatever ``fill`` raises.
    """
    place = _place()
    for lock in place.glob("*.lock"):
        if lock.stem != name:
            _remove_unused(lock)
    folder, path = place / name, place / f"{name}.lock"
    while (lock_file := _used(folder, path, fill)) is None:
        time.sleep(_LOOK_SECONDS)
    atexit.register(_leave, lock_file, path)
    return folder


def _used(folder: Path, path: Path, fill: Callable[[Path], None]) -> int | None:
    """The open file of the lock at ``path``, by which ``folder`` is used; None where others got in between."""
    lock_file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock_file, fcntl.LOCK_SH)  # waits for who makes it
        if not is_folder(folder):
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # does not wait for who uses it by then
            if _is_at(lock_file, path) and not is_folder(folder):
                _make(folder, fill)
            fcntl.flock(lock_file, fcntl.LOCK_SH)  # it lets go in between
        if _is_at(lock_file, path) and is_folder(folder):  # and was not removed before this process held the lock
            return lock_file
    except BlockingIOError:
        pass
    except BaseException:
        os.close(lock_file)
        raise
    os.close(lock_file)
    return None


def _place() -> Path:
    """This user's folder below TMPDIR, which the others are in. Python in them is run: it must be nobody else's."""
    place = Path(tempfile.gettempdir()) / f"mosld-files-{os.geteuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ResourceError(
            f"{place} is no folder that this user alone writes to, so that files for trials cannot be put there. "
            f"Remove it, or let TMPDIR name another folder."
        )
    return place


def _make(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make ``folder`` whole or not at all; its lock must be held."""
    aside = _aside(folder)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        fill(aside)
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _aside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.part")


def _leave(lock_file: int, path: Path) -> None:
    os.close(lock_file)
    _remove_unused(path)


def _remove_unused(path: Path) -> None:
    """Remove the folder of the lock at ``path``, and the lock, where no process uses it."""
    folder = path.with_suffix("")
    with suppress(OSError):  # it is in use, or gone by now
        lock_file = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(lock_file, path):
                if is_folder(folder):
                    folder.rename(_aside(folder))  # what is removed in part must not pass for the whole
                if is_folder(_aside(folder)):
                    shutil.rmtree(_aside(folder))
                path.unlink()
        finally:
            os.close(lock_file)


def _is_at(lock_file: int, path: Path) -> bool:
    """Whether the open file is the one at ``path``, which may have been removed since it was opened."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(lock_file), path.stat())
    return False
