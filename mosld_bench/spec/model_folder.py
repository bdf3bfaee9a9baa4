"""Base models in folders: which folder a name means, and a digest of what lies in it.

A folder is known by what it holds and not by where it lies: however its path is written, from whatever machine, it is
the model of the folder's own name with the digest of its files as revision; and with other weights it is another.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from mosld_bench.errors import BadFileError, ModelError
from mosld_bench.format import shortened
from mosld_bench.spec.plain_file import read_text_file
from mosld_bench.spec.trial import ModelSpec
from mosld_bench.spec.workspace import cache_home

#: What a model needs of its folder on the hub. No pickles: they run code when they are read.
MODEL_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]

#: The note that `fetch` leaves in a folder: whose model it is.
NOTE = "provenance.json"

_DIGEST = re.compile("[0-9a-f]{12}")
_LARGE = 1 << 26  # bytes from which on a digest is kept for the next call


def located(spec: ModelSpec) -> ModelSpec:
    """``spec`` with its folder, if its name means one; the name is then the folder's own.

    A name that begins with ``.``, ``/`` or ``~`` is a path. Any other is one where there is such a folder with a
    configuration below the current one, unless a revision is asked for or `fetch` made the folder: then it holds the
    hub's model of that name.

    Raises ModelError for a path without a model.
    """
    if spec.name == "embedded":
        return spec
    explicit = spec.name.startswith((".", "/", "~"))
    try:
        folder = Path(spec.name).expanduser()
        holds_model = (folder / "config.json").is_file()
    except (OSError, ValueError, RuntimeError):  # too long for the system, or ~ of nobody
        holds_model = False
    if not explicit and (not holds_model or spec.revision is not None or (folder / NOTE).is_file()):
        return spec
    if not holds_model:
        _refuse(spec.name)
    folder = folder.resolve()
    return spec.model_copy(update={"name": folder.name or "model", "folder": str(folder)})


def _refuse(name: str) -> None:
    shown = shortened(name, 200)
    with suppress(OSError, ValueError, RuntimeError):
        if Path(name).expanduser().is_dir():
            raise ModelError(f"The model folder {shown} has no config.json.")
    raise ModelError(
        f"There is no model folder {shown}. Where only records of it are here, name the folder's own name and the "
        f"revision that they hold: --set 'model={{name: NAME, revision: REVISION}}'."
    )


def content_digest(folder: Path) -> str:
    """12 hex digits over the configuration, tokenizer and weights in a folder: their names and all their bytes.

    That of large files is kept in the user's cache for as long as their sizes and times stay. Raises ModelError for
    files that cannot be read.
    """
    try:
        files = sorted(path for path in folder.iterdir() if _counts(path.name) and path.is_file())
        stats = [path.stat() for path in files]
    except OSError as error:
        raise ModelError(f"The model folder {folder} cannot be read ({error.strerror}).") from error
    state = tuple((path.name, at.st_size, at.st_mtime_ns, at.st_ino) for path, at in zip(files, stats, strict=True))
    return _digest(folder, state)


def _counts(name: str) -> bool:
    return name != NOTE and any(fnmatchcase(name, pattern) for pattern in MODEL_FILES)


@lru_cache(maxsize=64)
def _digest(folder: Path, state: tuple[tuple[str, int, int, int], ...]) -> str:
    """That of the files in ``state``: name, bytes, time of change in nanoseconds, and number on the disk."""
    kept = None
    if sum(size for _, size, _, _ in state) >= _LARGE:
        key = hashlib.sha256(json.dumps([str(folder), state]).encode()).hexdigest()
        kept = cache_home() / "digests" / key[:32]
        with suppress(BadFileError):
            digest = read_text_file(kept, needed="a digest")
            if _DIGEST.fullmatch(digest):
                return digest
    content = hashlib.sha256()
    try:
        for name, size, _, _ in state:
            content.update(f"{name}\0{size}\0".encode())
            with (folder / name).open("rb") as file:
                content.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise ModelError(f"The model folder {folder} cannot be read ({error.strerror}).") from error
    digest = content.hexdigest()[:12]
    if kept is not None:
        with suppress(OSError):  # a cache that cannot be written costs time and no more
            kept.parent.mkdir(parents=True, exist_ok=True)
            aside = kept.with_suffix(".new")
            aside.write_text(digest, encoding="ascii")
            aside.replace(kept)
    return digest
