"""What Ray needs of a machine, seen to before it is asked: a folder for its sockets, a cluster that answers.

Ray itself says neither in time: it raises from within for the first, and waits for minutes for the second.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from mosld_bench.errors import ResourceError

#: Bytes of a socket's path that Linux takes, and of what Ray puts behind its folder in the longest one:
#: ``/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store``.
_MAX_SOCKET, _WITHIN_SESSION = 107, 64

#: Folders for temporary files that are short enough, the best first.
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")

_CONNECT_SECONDS = 5.0

#: The beginning of a connection by HTTP/2, which gRPC speaks, and an empty frame of settings; a server answers by its
#: own frame of settings, whose fourth byte is 4.
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def temp_folder(environment: Mapping[str, str]) -> str | None:
    """The folder that Ray would use by itself, or None where that is missing, read-only or too long for its sockets."""
    base = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"
    folder = str(Path(base) / "ray")
    fits = len(os.fsencode(folder)) + _WITHIN_SESSION <= _MAX_SOCKET
    there = Path(folder) if Path(folder).exists() else Path(base)
    return folder if fits and there.is_dir() and os.access(there, os.W_OK | os.X_OK) else None


class TempFolder:
    """A folder for Ray's sockets and logs: ``path``. Where TMPDIR is of no use, one elsewhere, removed at the end.

    Raises ResourceError, with TMPDIR in it, where there is none.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        usual = temp_folder(environment)
        self.path = usual or _made(environment)
        self._own = usual is None

    def __enter__(self) -> TempFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the folder, if it was made here."""
        if self._own:
            shutil.rmtree(self.path, ignore_errors=True)


def _made(environment: Mapping[str, str]) -> str:
    for folder in _SHORT:
        with suppress(OSError):
            return tempfile.mkdtemp(prefix="mosld-ray-", dir=folder)
    named = ", ".join(f"{name}={environment[name]}" for name in ("RAY_TMPDIR", "TMPDIR") if name in environment)
    raise ResourceError(
        f"Ray needs a folder for its sockets, of at most {_MAX_SOCKET - _WITHIN_SESSION - len('/ray')} bytes and "
        f"writable; TMPDIR is none ({named or 'not set'}), nor is any of {', '.join(_SHORT)}. Set TMPDIR to one, or "
        f"use --executor inline."
    )


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
    host, port = _host_and_port(address, target)
    shown = f"{address} ({target})" if address != target else address
    try:
        with socket.create_connection((host, port), _CONNECT_SECONDS) as connection:
            connection.settimeout(_CONNECT_SECONDS)
            if environment.get("RAY_USE_TLS", "0") != "0":
                return  # what answers is encrypted
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


def _noted(environment: Mapping[str, str]) -> str | None:
    """What the last ``ray start`` on this machine has left."""
    base = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"
    with suppress(OSError, ValueError):
        return (Path(base) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    return None


def _host_and_port(address: str, target: str) -> tuple[str, int]:
    """Of ``HOST:PORT``, with ``ray://`` before it or not. Raises ResourceError for anything else."""
    host, _, port = target.removeprefix("ray://").rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 2**16):
        raise ResourceError(
            f"--ray-address takes HOST:PORT, ray://HOST:PORT, or 'auto' to find a cluster; given: {address[:100]!r}."
        )
    return host.strip("[]"), int(port)
