"""What trials read of this machine's files, and how a machine of a cluster that does not see them gets them.

Task definitions, their Python and local data, the data sets below ``--data-root`` that the trials use, and the modules
of plug-ins: small enough to travel, through Ray's object store, once to each machine that lacks them. Weights are not:
a machine finds them at the same path, in the folder that its own MOSLD_BENCH_MODEL_ROOT names, or in its hub's cache.
"""

from __future__ import annotations

import atexit
import io
import os
import shutil
import socket
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from mosld_bench.compat.lm_eval import data_path
from mosld_bench.errors import BenchError, ResourceError
from mosld_bench.scratch import prefix, sweep
from mosld_bench.spec.plain_file import is_folder, is_regular
from mosld_bench.spec.task_files import TaskFiles, look_below
from mosld_bench.spec.trial import Trial
from mosld_bench.trial.session import WorkerConfig

#: Bytes that travel at most. A mirror of data sets with more is on a machine already, or is to be put there.
MOST_BYTES = 1 << 30

#: A machine's own folders, where they lie elsewhere than on the one that the run was started on.
MODEL_ROOT, DATA_ROOT = "MOSLD_BENCH_MODEL_ROOT", "MOSLD_BENCH_DATA_ROOT"


class Listed(NamedTuple):
    """A file as it was when the run began."""

    path: str  # absolute
    size: int  # bytes
    changed: int  # nanoseconds, as the file system has it

    @classmethod
    def of(cls, path: Path) -> Listed:
        """The file at ``path``, which must be there."""
        status = path.stat()
        return cls(str(path), status.st_size, status.st_mtime_ns)

    def is_here(self) -> bool:
        """Whether this machine has the file, unchanged, at its path: as where both share a file system."""
        with suppress(OSError):
            return Listed.of(Path(self.path)) == self
        return False


@dataclass(frozen=True)
class NodeFiles:
    """The files that the trials of a run read, plain data for its workers; ``folder`` is where the run was started."""

    files: tuple[Listed, ...]
    folder: str

    @classmethod
    def of(cls, config: WorkerConfig, trials: Iterable[Trial]) -> NodeFiles:
        """Those of ``trials`` under ``config``, whose plug-ins this process has imported."""
        tasks = dict.fromkeys(task for trial in trials for task in trial.task_digests)
        folders = tuple(Path(folder) for folder in config.task_folders)
        found = TaskFiles.scan(folders)
        read = [path for folder in folders for path in folder.rglob("*.yaml") if is_regular(path)]
        for task in tasks:
            read += found.files_of(task)
            if config.data_root:
                read += _data_set(Path(config.data_root), found.config(task) or {})
        read += _modules(config.import_from)
        absolute = dict.fromkeys(Path(os.path.abspath(path)) for path in read)  # noqa: PTH100  # links stay
        return cls(tuple(Listed.of(path) for path in absolute), str(Path.cwd()))

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(file.size for file in self.files)

    def pack(self) -> bytes | None:
        """Their contents, for `placed`; None where they are too large to travel."""
        if self.size > MOST_BYTES:
            return None
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for file in self.files:
                archive.write(file.path, file.path.lstrip("/"))
        return content.getvalue()

    def missing(self) -> list[str]:
        """The paths of those that this machine lacks, or has in another state."""
        return [file.path for file in self.files if not file.is_here()]


def placed(
    config: WorkerConfig,
    files: NodeFiles,
    fetch: Callable[[], bytes | None],
    environment: Mapping[str, str] | None = None,
) -> WorkerConfig:
    """``config`` for this machine, which lacks some of ``files``: with what travelled unpacked, and its own roots.

    Unpacked is below a folder of this process, which goes with it. ``fetch`` gives what `NodeFiles.pack` gave, and is
    called where a file is missing. From then on the process works in its copy of the folder that the run was started
    in. Raises ResourceError where files are missing that did not travel.
    """
    environment = os.environ if environment is None else environment
    data_root, model_root = config.data_root, config.model_root
    if model_root and not is_folder(Path(model_root)):
        model_root = environment.get(MODEL_ROOT) or model_root
    lacking = files.missing()
    if data_root and (own := environment.get(DATA_ROOT)):
        below = [path for path in lacking if Path(path).is_relative_to(data_root)]
        if below and all(is_regular(Path(own) / Path(path).relative_to(data_root)) for path in below):
            lacking, data_root = [path for path in lacking if path not in below], own
    if not lacking:
        return replace(config, data_root=data_root, model_root=model_root)
    content = fetch()
    if content is None:
        raise ResourceError(
            f"The machine {socket.gethostname()} has no {lacking[0]}{_and_more(lacking)}, and what this study reads is "
            f"{files.size / 1e9:.1f} GB, too much to be sent ({MOST_BYTES / 1e9:.1f} GB). Put it there at the same "
            f"path, or let {DATA_ROOT} name the folder of data sets on that machine."
        )
    root = Path(tempfile.gettempdir()) / f"{prefix()}files"
    sweep(root.parent)
    shutil.rmtree(root, ignore_errors=True)  # of a dead process that had the number of this one
    root.mkdir(mode=0o700)
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(root)
    look_below(root)
    folder = root / files.folder.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)

    def moved(path: str) -> str:
        return str(root / path.lstrip("/"))

    return replace(
        config,
        task_folders=tuple(moved(folder) for folder in config.task_folders),
        import_from=tuple(moved(folder) for folder in config.import_from),
        data_root=moved(data_root) if data_root and data_root == config.data_root else data_root,
        model_root=model_root,
    )


def _and_more(lacking: Sequence[str]) -> str:
    return f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""


def _data_set(root: Path, config: Mapping[str, object]) -> Iterator[Path]:
    """The files of the data set below ``root`` that a definition reads."""
    with suppress(BenchError):
        path, _ = data_path(config)
        folder = root / path
        if path and not Path(path).is_absolute() and is_folder(folder):
            yield from (file for file in sorted(folder.rglob("*")) if is_regular(file))


def _modules(folders: Sequence[str]) -> Iterator[Path]:
    """The files of modules that were imported from ``folders`` and are no part of an installed package."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        own = name.partition(".")[0] == "mosld_bench" or "site-packages" in str(file)
        if file and file.endswith(".py") and not own and any(Path(file).is_relative_to(folder) for folder in folders):
            yield Path(file)
