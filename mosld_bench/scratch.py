"""Files and folders that are there for a while, named by the process that made them.

A process that is killed cannot remove them; the next one does, by `sweep`, which tells a dead process by its number.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import TracebackType

#: How the names of processes begin that are ended with a folder: those of Ray, which outlive who has started them.
_OF_RAY = ("gcs_server", "raylet", "ray::", "python")
_MOST_ROUNDS = 20

_NAMED = re.compile(r"\.?mosld-([0-9a-f]{4})-(\d{1,9})-")


def prefix() -> str:
    """What such names of this process begin with; on another machine, which may share a folder, they differ."""
    return f"mosld-{_machine()}-{os.getpid()}-"


@cache
def _machine() -> str:
    """Where the number of a process is one of this machine's, or of this container's where it counts by itself."""
    place = socket.gethostname()
    with suppress(OSError):
        place += str(Path("/proc/self/ns/pid").readlink())
    return f"{zlib.crc32(place.encode()) & 0xFFFF:04x}"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder below TMPDIR, removed at the end; what cannot be removed then is left for `sweep`."""
    with tempfile.TemporaryDirectory(prefix=prefix(), ignore_cleanup_errors=True) as name:
        yield Path(name)


class Staged:
    """Files that are written aside in a folder, whole, and take their places together. Use as a context manager.

    Where writing fails nothing has changed: raises OSError, of which the place is the file, where the system does not
    let it be written or has no room for it.
    """

    def __init__(self, folder: Path) -> None:
        """``folder``: where they are meanwhile; it must be there, on the disk of their places."""
        self._folder = folder
        self._asides: list[tuple[Path, Path]] = []

    def __enter__(self) -> Staged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for aside, _ in self._asides:
            with suppress(OSError):
                aside.unlink(missing_ok=True)

    def add(self, path: Path, content: bytes) -> None:
        """Write what is to be at ``path``."""
        aside = self._folder / f".{prefix()}{secrets.token_hex(4)}"
        self._asides.append((aside, path))
        with _of(path), aside.open("xb", buffering=0) as file:  # a buffer would be written, and fail, once more
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())

    def place(self) -> None:
        """Let all take their places, in the order in which they were added; their folders must be there."""
        for aside, path in self._asides:
            with _of(path):
                aside.replace(path)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, whatever happens meanwhile. Its folder must be there. Raises as `Staged`."""
    with Staged(path.parent) as staged:
        staged.add(path, content)
        staged.place()


@contextmanager
def _of(path: Path) -> Iterator[None]:
    """An error within it is one of ``path``."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def left_behind(folder: Path, *, deep: bool = False) -> Iterator[Path]:
    """What processes of this machine and user that are dead now have left in ``folder``.

    ``deep``: in the folders that are directly in it as well.
    """
    for entry in _entries(folder):
        match = _NAMED.match(entry.name)
        with suppress(OSError):  # it is gone by now
            if match is None:
                if deep and entry.is_dir(follow_symlinks=False):
                    yield from left_behind(Path(entry.path))
            elif match[1] == _machine() and not _lives(int(match[2])) and _is_mine(entry):
                yield Path(entry.path)


def sweep(folder: Path, *, deep: bool = False) -> None:
    """Remove what is `left_behind` in ``folder``, as far as the system lets it be removed.

    What still works in a folder of a dead process would make its files anew, and is ended before.
    """
    for path in list(left_behind(folder, deep=deep)):
        if path.is_dir() and not path.is_symlink():
            end_processes(path)
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def end_processes(folder: Path) -> None:
    """Kill the processes of Ray that work in ``folder``, as far as /proc tells them; never this one.

    Such a one has a file open there, or was started with the folder as an argument and has not come to open one. It may
    have started another meanwhile, so they are looked for until there are none.
    """
    for _ in range(_MOST_ROUNDS):
        found = [process for process in Path("/proc").glob("[0-9]*") if _works_in(process, folder)]
        for process in found:
            with suppress(OSError):
                os.kill(int(process.name), signal.SIGKILL)
        if not found:
            return
        time.sleep(0.05)  # until they are gone


def _works_in(process: Path, folder: Path) -> bool:
    """Whether a process in /proc is one of Ray in ``folder``."""
    with suppress(OSError):
        if int(process.name) == os.getpid() or not (process / "comm").read_text().startswith(_OF_RAY):
            return False
        if os.fsencode(folder) in (process / "cmdline").read_bytes():
            return True
        return any(target.startswith(f"{folder}{os.sep}") for target in _open_files(process))
    return False


def _open_files(process: Path) -> Iterator[str]:
    with suppress(OSError):
        for link in (process / "fd").iterdir():
            with suppress(OSError):
                yield str(link.readlink())


def sweep_temporary() -> None:
    """`sweep` where `scratch_folder` makes its folders."""
    sweep(Path(tempfile.gettempdir()))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:
        return list(entries)
    return []


def _is_mine(entry: os.DirEntry[str]) -> bool:
    return entry.stat(follow_symlinks=False).st_uid == os.geteuid()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
