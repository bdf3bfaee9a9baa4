"""Downloads from the hub that are whole or not there: into a folder aside, renamed at the end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock


@contextmanager
def aside(target: Path, revision: str | None) -> Iterator[Path | None]:
    """A folder beside ``target`` that takes its name when the block ends well; None where ``target`` has files already.

    What an interrupted download of the same ``revision`` has left is still in the folder the next time, and is gone on
    with. One process at a time: others wait for its end.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        if target.is_dir() and any(target.iterdir()):
            yield None
            return
        folder = target.parent / f".fetch-{target.name}-{(revision or 'main').replace('/', '-')}"
        folder.mkdir(exist_ok=True)
        try:
            yield folder
        except BaseException:
            if not any(path.is_file() for path in folder.rglob("*")):
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        folder.replace(target)


def download(repository: str, folder: Path, *, revision: str | None, patterns: Sequence[str], **options: Any) -> None:
    """The files of a hub repository that match ``patterns``, into ``folder``, where those that are there stay.

    ``options`` go to ``huggingface_hub.snapshot_download``. Raises what the hub's client raises.
    """
    from huggingface_hub import snapshot_download

    request = {"revision": revision, "local_dir": folder, "allow_patterns": list(patterns), **options}
    if any(folder.iterdir()):
        snapshot_download(repository, dry_run=True, **request)  # else no network would pass for a finished download
    snapshot_download(repository, **request)
