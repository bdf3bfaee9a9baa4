"""What Ray needs of a machine, seen to before it is asked: a folder for its sockets, a cluster that answers.

Ray itself says neither in time: it raises from within for the first, and waits for minutes for the second.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from mosld_bench.errors import ResourceError
from mosld_bench.scratch import end_processes, prefix, sweep

#: Bytes of a socket's path that Linux takes, and of what Ray puts behind its folder in the longest one:
#: ``/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store``.
_MAX_SOCKET, _WITHIN_SESSION = 107, 64
_RAY = "ray"
#: Bytes of a folder in which that of a run has room.
_MOST_BASE = _MAX_SOCKET - _WITHIN_SESSION - len(f"/mosld-01ab-4194304-{_RAY}")

#: Folders for temporary files that are short enough, the best first.
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")

_CONNECT_SECONDS = 5.0

#: The beginning of a connection by HTTP/2, which gRPC speaks, and an empty frame of settings; a server answers by its
#: own frame of settings, whose fourth byte is 4.
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def temp_base(environment: Mapping[str, str]) -> Path | None:
    """Where Ray's folder is made: RAY_TMPDIR or TMPDIR, else the best of `_SHORT`. None where there is no place.

    A place is of use if it can be written to and is short enough for the sockets in the folder.
    """
    named = environment.get("RAY_TMPDIR") or environment.get("TMPDIR")
    fits = named is not None and len(os.fsencode(named)) <= _MOST_BASE
    for base in (*([named] if named and fits else []), *_SHORT):
        if Path(base).is_dir() and os.access(base, os.W_OK | os.X_OK):
            return Path(base)
    return None


class TempFolder:
    """A folder of this process for Ray's sockets and logs, removed at the end: ``path``.

    What dead processes left of theirs is removed as well. Raises ResourceError, with TMPDIR in it, where there is no
    place for one.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        base = temp_base(environment)
        try:
            if base is None:
                raise OSError
            sweep(base)
            self._base = base
            self.path = str(base / f"{prefix()}{_RAY}")
            shutil.rmtree(self.path, ignore_errors=True)  # of a dead process that had the number of this one
            Path(self.path).mkdir(mode=0o700)
        except OSError as error:
            named = ", ".join(f"{name}={environment[name]}" for name in ("RAY_TMPDIR", "TMPDIR") if name in environment)
            raise ResourceError(
                f"Ray needs a folder for its sockets, of at most {_MOST_BASE} bytes "
                f"and writable{f' ({error.strerror})' if error.strerror else ''}; TMPDIR is none "
                f"({named or 'not set'}), nor is any of {', '.join(_SHORT)}. Set TMPDIR to one, or use --executor "
                f"inline."
            ) from None

    def __enter__(self) -> TempFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def end_processes(self) -> None:
        """End what still has files open in the folder, as a part of Ray does that another part should have ended."""
        end_processes(Path(self.path))

    def remove(self) -> None:
        """Remove the folder, and end what still works in it; and once more what dead processes left of theirs."""
        self.end_processes()
        shutil.rmtree(self.path, ignore_errors=True)
        sweep(self._base)


def check_address(address: str, environment: Mapping[str, str] | None = None) -> None:
    """Raises ResourceError, in `_CONNECT_SECONDS` twice at most, where no Ray cluster answers at ``address``.

    For ``auto`` the address that Ray would find: RAY_ADDRESS, or the one that its last ``ray start`` has noted.
    """
    environment = os.environ if environment is None else environment
    target = address
    if address == "auto":
        target = environment.get("RAY_ADDRESS") or _noted(environment) or ""
        if target in {"", "auto"}:
            return  # Ray looks at the processes of this machine, and says at once where there is none
    host, port = host_and_port(address, target)
    shown = f"{address} ({target})" if address != target else address
    try:
        with socket.create_connection((host, port), _CONNECT_SECONDS) as connection:
            connection.settimeout(_CONNECT_SECONDS)
            if _encrypted(environment):
                return
            connection.sendall(_HTTP2_HELLO)
            speaks = connection.recv(4)[3:4] == b"\4"
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ResourceError(
            f"No Ray cluster answers at --ray-address {shown}: {reason}. Start one by 'ray start --head', which prints "
            f"its address, or leave the option out to run on this machine."
        ) from None
    if not speaks:
        raise ResourceError(
            f"Something answers at --ray-address {shown}, but it is no Ray cluster. 'ray start --head' prints the "
            f"address of one."
        )


async def answers(host: str, port: int, timeout_seconds: float) -> bool:
    """Whether a process of Ray answers there, in time."""
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                if _encrypted(os.environ):
                    return True
                writer.write(_HTTP2_HELLO)
                return (await reader.readexactly(4))[3:] == b"\4"
            finally:
                writer.close()
    except (OSError, asyncio.IncompleteReadError):  # that of a time-out is an OSError
        return False


def _encrypted(environment: Mapping[str, str]) -> bool:
    """Whether what answers is encrypted, so that no more than a connection tells that it lives."""
    return environment.get("RAY_USE_TLS", "0") != "0"


def _noted(environment: Mapping[str, str]) -> str | None:
    """What the last ``ray start`` on this machine has left."""
    base = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"
    with suppress(OSError, ValueError):
        return (Path(base) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    return None


def host_and_port(address: str, target: str) -> tuple[str, int]:
    """Of ``HOST:PORT``, with ``ray://`` before it or not. Raises ResourceError for anything else."""
    host, _, port = target.removeprefix("ray://").rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 2**16):
        raise ResourceError(
            f"--ray-address takes HOST:PORT, ray://HOST:PORT, or 'auto' to find a cluster; given: {address[:100]!r}."
        )
    return host.strip("[]"), int(port)
