"""Files that others may have written, read within bounds: bytes, text, CSV and JSON. Each failure is a sentence."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from mosld_bench.errors import BadFileError

_Value = TypeVar("_Value")

_MAX_DIGITS = 1000  # of a number; Python itself refuses some thousands with an error of its own
_MAX_JSON = 1 << 26  # bytes


def read_bytes_file(path: Path, *, most_bytes: int = _MAX_JSON, needed: str) -> bytes:
    """The content of a file. ``needed``: what has to be there, as in "a YAML file".

    Raises BadFileError for what is no regular file or has more than ``most_bytes``.
    """
    try:
        mode = path.stat().st_mode  # asked before it is opened: opening a pipe waits for who writes to it
        if stat.S_ISDIR(mode):
            raise BadFileError(f"{path} is a folder; {needed} is needed there.")
        if not stat.S_ISREG(mode):
            raise BadFileError(f"{path} is no regular file (a pipe, a socket or a device); {needed} is needed.")
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except FileNotFoundError:
        broken = " It is a link to what is not there." if path.is_symlink() else ""
        raise BadFileError(f"{path} does not exist.{broken}") from None
    except (OSError, ValueError) as error:  # a link to itself, no permission, a name that the system does not take
        reason = getattr(error, "strerror", None) or str(error)
        raise BadFileError(f"{str(path)[:200]} cannot be read ({reason}).") from None
    if len(content) > most_bytes:
        raise BadFileError(f"{path} has more than {most_bytes:,} bytes, which {needed} does not need.")
    return content


def read_text_file(path: Path, *, most_bytes: int = _MAX_JSON, needed: str) -> str:
    """The text of a file in UTF-8. ``needed``: as of `read_bytes_file`.

    Raises BadFileError as that does, and for what is no UTF-8.
    """
    content = read_bytes_file(path, most_bytes=most_bytes, needed=needed)
    try:
        return content.decode("utf-8-sig")  # a mark at its beginning says no more than that it is UTF-8
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadFileError(f"{path} is not UTF-8 (line {line}). Save it as UTF-8.") from None


def read_csv(path: Path, *, needed: str) -> list[dict[str, str]]:
    """The lines of a CSV file, each by the names in the first one; a line that is too short lacks the last of them.

    Raises BadFileError for what is no such file.
    """
    text = read_text_file(path, needed=needed)
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""))
        names = rows.fieldnames or ()
        return [{name: row[name] for name in names if row[name] is not None} for row in rows]
    except csv.Error as error:
        raise BadFileError(f"{path} is no CSV ({error}).") from None


def is_folder(path: Path) -> bool:
    """Whether there is a folder at ``path``: unlike `Path.is_dir`, also of a name that no system takes."""
    return os.path.isdir(path)  # noqa: PTH112 - that one raises


def is_regular(path: Path) -> bool:
    """Whether there is a regular file at ``path``: unlike `Path.is_file`, also of a name that no system takes."""
    return os.path.isfile(path)  # noqa: PTH113 - that one raises


def read_json(path: Path, *, most_bytes: int = _MAX_JSON) -> Any:
    """The value in a JSON file.

    Raises BadFileError for what is no such file, for NaN and the infinities, which JSON lacks, for a number of
    thousands of digits, and for lists in lists in lists without end.
    """
    text = read_text_file(path, most_bytes=most_bytes, needed="a JSON file")
    try:
        return json.loads(text, parse_int=_whole, parse_constant=_constant)
    except RecursionError:
        raise BadFileError(f"{path} is no usable JSON: its lists and mappings stand in each other too deep.") from None
    except ValueError as error:
        raise BadFileError(f"{path} is not JSON ({str(error)[:200]}).") from None


def read_json_mapping(path: Path, *, most_bytes: int = _MAX_JSON) -> dict[str, Any]:
    """The mapping in a JSON file. Raises BadFileError as `read_json` does, and for another value."""
    content = read_json(path, most_bytes=most_bytes)
    if not isinstance(content, dict):
        raise BadFileError(f"{path} must hold a mapping of keys to values, not {type(content).__name__}.")
    return content


def read_kept(kind: type[_Value], path: Path) -> _Value | None:
    """The ``kind`` (what pydantic can check: a dataclass, a dictionary of such) that was kept in a JSON file.

    None where there is no file, or one of other content: what is kept can be made again.
    """
    from pydantic import ValidationError

    try:
        value: _Value = _checks(cast("Hashable", kind)).validate_json(read_bytes_file(path, needed="a JSON file"))
    except (BadFileError, ValidationError):
        return None
    return value


@cache
def _checks(kind: Any) -> Any:
    """What checks values of a kind; to make it takes longer than to read a file."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
