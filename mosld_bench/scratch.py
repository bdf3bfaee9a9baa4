"""Files and folders that are there for a while, named by the process that made them.

A process that is killed cannot remove them; the next one does, by `sweep`, which tells a dead process by its number.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAMED = re.compile(r"\.?mosld-([0-9a-f]{4})-(\d{1,9})-")


def prefix() -> str:
    """What such names of this process begin with; on another machine, which may share a folder, they differ."""
    return f"mosld-{_machine()}-{os.getpid()}-"


def _machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()) & 0xFFFF:04x}"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder below TMPDIR, removed at the end."""
    with tempfile.TemporaryDirectory(prefix=prefix()) as name:
        yield Path(name)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, whatever happens meanwhile. Its folder must be there.

    Raises OSError, of which ``path`` is the file, where the system does not let it be written or has no room for it.
    """
    aside = path.with_name(f".{prefix()}{secrets.token_hex(4)}")
    try:
        # Not by a buffer: that would be written once more when it is closed, and fail once more.
        with aside.open("xb", buffering=0) as file:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


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
    """Remove what is `left_behind` in ``folder``, as far as the system lets it be removed."""
    for path in list(left_behind(folder, deep=deep)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


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
