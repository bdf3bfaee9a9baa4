"""Why the hub gave nothing, in words: no network, a variable that forbids it, nothing of that name, no permission."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

#: Variables by which the hub's libraries keep off the network.
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")

_UNRESOLVED = ("name or service not known", "name resolution", "nodename nor servname", "getaddrinfo")


def offline_by(environment: Mapping[str, str] | None = None) -> str | None:
    """The variable, with its value, that keeps the hub's libraries off the network; None where none does."""
    environment = os.environ if environment is None else environment
    given = (f"{name}={environment.get(name, '')}" for name in OFFLINE)
    return next((text for text in given if text.partition("=")[2].upper() in {"1", "ON", "YES", "TRUE"}), None)


def chain(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it came of, the last one first thrown."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def in_words(error: BaseException) -> str:
    """The name of an error and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def why_nothing_came(error: BaseException) -> str:
    """The cause of an error of the hub's libraries, as part of a sentence; its own words where it is none of these."""
    errors = list(chain(error))
    names = " ".join(f"{type(each).__name__} {each}" for each in errors)
    if "OfflineModeIsEnabled" in names:
        return f"{offline_by() or 'an offline variable'} keeps off the network, and no copy is on this machine"
    if "Gated" in names or "gated" in names:
        return "it is gated: its page on the hub asks for an agreement, after which HF_TOKEN lets in"
    if any(word in names.lower() for word in _UNRESOLVED):
        return "this machine finds no network: the hub's name is not resolved"
    status = next((code for each in errors if (code := _status(each)) is not None), None)
    if status in {401, 403}:
        return f"the hub lets nobody in without the right HF_TOKEN, or has nothing of that name (HTTP {status})"
    if status == 404 or "NotFoundError" in type(error).__name__.replace("LocalEntryNotFound", ""):
        return "the hub has nothing of that name and revision, or nothing that HF_TOKEN lets see"
    if "LocalEntryNotFoundError" in names:
        return "the hub does not answer, and no copy is on this machine"
    return in_words(errors[-1])


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error came with."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None
