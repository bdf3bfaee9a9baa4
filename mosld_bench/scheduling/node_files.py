"""What trials read of this machine's files, and how a machine of a cluster that does not see them gets them.

Task definitions, their Python and local data, and the modules of plug-ins are one group of files, the data sets below
``--data-root`` that the trials use another: each is small enough to travel, through Ray's object store, to a machine
that lacks something of it, or too large. Weights do not travel: a machine finds them at the same path, in the folder
that its own MOSLD_BENCH_MODEL_ROOT names, or in its hub's cache.
"""

from __future__ import annotations

import hashlib
import io
import os
import socket
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from mosld_bench.errors import ModelError, ResourceError
from mosld_bench.inputs.models import place
from mosld_bench.inputs.source_note import check_revision
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.scratch import sweep_temporary
from mosld_bench.spec.model_folder import content_digest
from mosld_bench.spec.plain_file import is_folder, is_regular
from mosld_bench.spec.task_files import look_below
from mosld_bench.spec.trial import ModelSpec, Trial
from mosld_bench.trial.session import WorkerConfig

#: Bytes of a group that travel at most. A mirror with more is on a machine already, or is to be put there.
MOST_BYTES = 1 << 30

#: A machine's own folders, where they lie elsewhere than on the one that the run was started on.
MODEL_ROOT, DATA_ROOT = "MOSLD_BENCH_MODEL_ROOT", "MOSLD_BENCH_DATA_ROOT"

#: Bytes of a file that are compared at most, of a larger one in so many pieces: a file of rows is read whole in a
#: moment, shards of tens of gigabytes would take every worker minutes before its first trial.
_COMPARED, _PIECES = 1 << 26, 64


class Listed(NamedTuple):
    """A file as it was when the run began."""

    path: str  # absolute
    size: int  # bytes
    changed: int  # nanoseconds, as the file system has it
    digest: str  # as `_digest` has it

    @classmethod
    def of(cls, path: Path) -> Listed:
        """The file at ``path``, which must be there."""
        status = path.stat()
        return cls(str(path), status.st_size, status.st_mtime_ns, _digest(path, status.st_size))

    def is_here(self) -> bool:
        """Whether this machine has the file at its path: with its time, as on a shared file system, or its content."""
        with suppress(OSError):
            status = Path(self.path).stat()
            return status.st_size == self.size and (status.st_mtime_ns == self.changed or self.is_like(self.path))
        return False

    def is_like(self, path: str) -> bool:
        """Whether the file at ``path`` has the same size and content, as far as `_digest` goes."""
        with suppress(OSError):
            return Path(path).stat().st_size == self.size and _digest(Path(path), self.size) == self.digest
        return False


def _digest(path: Path, size: int) -> str:
    """A digest of a file of ``size`` bytes: of all of it up to 64 MiB, of a larger one of pieces from end to end."""
    content = hashlib.sha256()
    with path.open("rb") as file:
        if size <= _COMPARED:
            return hashlib.file_digest(file, "sha256").hexdigest()
        piece = _COMPARED // _PIECES
        for number in range(_PIECES):
            file.seek((size - piece) * number // (_PIECES - 1))
            content.update(file.read(piece))
    return content.hexdigest()


@dataclass(frozen=True)
class FileGroup:
    """Files that travel together, where any of them is lacking, or not at all."""

    files: tuple[Listed, ...]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> FileGroup:
        """Those at ``paths``, each once."""
        absolute = dict.fromkeys(Path(os.path.abspath(path)) for path in paths)  # noqa: PTH100  # links stay
        return cls(tuple(Listed.of(path) for path in absolute))

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(file.size for file in self.files)

    @property
    def travels(self) -> bool:
        """Whether they are small enough."""
        return self.size <= MOST_BYTES

    @property
    def name(self) -> str:
        """What tells them, as they were when the run began, from others."""
        return hashlib.sha256(repr(self.files).encode()).hexdigest()[:24]

    def pack(self) -> bytes | None:
        """Their contents, for `placed`; None where they are too large to travel."""
        if not self.travels:
            return None
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
            for file in self.files:
                archive.write(file.path, file.path.lstrip("/"))
        return content.getvalue()

    def missing(self) -> list[str]:
        """The paths of those that this machine lacks, or has with other content."""
        return [file.path for file in self.files if not file.is_here()]

    def unlike(self, root: str, other: str) -> list[str]:
        """The paths, as they are below the folder ``root``, of those that ``other`` lacks or has with other content."""
        paths = {file: os.path.relpath(file.path, root) for file in self.files}
        return [path for file, path in paths.items() if not file.is_like(str(Path(other) / path))]


Part = Literal["definitions", "data"]
"""Which group of files: one of the fields of `NodeFiles`."""


@dataclass(frozen=True)
class NodeFiles:
    """The files that the trials of a run read, plain data for its workers; ``folder`` is where the run was started.

    ``data``: those below the data root; ``definitions``: all others. ``data_sets``: what the trials read below a data
    root, by the names there, where one is given and where none is.
    """

    definitions: FileGroup
    data: FileGroup
    data_sets: tuple[str, ...]
    folder: str

    @classmethod
    def of(cls, config: WorkerConfig, trials: Iterable[Trial]) -> NodeFiles:
        """Those of ``trials`` under ``config``, whose plug-ins this process has imported."""
        tasks = dict.fromkeys(task for trial in trials for task in trial.task_digests)
        folders = [Path(folder) for folder in config.task_folders]
        data_root = Path(config.data_root) if config.data_root else None
        loader = TaskLoader(folders, data_root)
        read = [path for folder in folders for path in folder.rglob("*.yaml") if is_regular(path)]
        data_sets = dict[str, None]()
        for task in tasks:
            read += loader.files.files_of(task)
            with suppress(Exception):  # of a definition that cannot be read here: its trials will say so
                data_sets |= {name: None for name in [loader.data_set(task)] if name}
        read += _modules(config.import_from)
        found = [path for name in data_sets if data_root for path in sorted((data_root / name).rglob("*"))]
        data = FileGroup.of(path for path in found if is_regular(path))
        return cls(FileGroup.of(read), data, tuple(data_sets), str(Path.cwd()))


def placed(
    config: WorkerConfig,
    files: NodeFiles,
    fetch: Callable[[Part], bytes | None],
    environment: Mapping[str, str] | None = None,
) -> WorkerConfig:
    """``config`` for this machine, which lacks some of ``files``: with what travelled unpacked, and its own roots.

    What is unpacked all workers of this machine share (`shared_folder`). ``fetch`` gives what `FileGroup.pack` gave of
    a group, and is called where a file of it is missing here. From then on the process works in the folder that the run
    was started in, or in its copy of it. Raises ResourceError where files are missing that did not travel.
    """
    environment = os.environ if environment is None else environment
    sweep_temporary()  # what workers that were killed have left on this machine, where no run is started that would
    model_root = config.model_root
    if model_root is None or not is_folder(Path(model_root)):
        model_root = environment.get(MODEL_ROOT) or model_root
    data_root = _data_root_here(config.data_root, files, fetch, environment.get(DATA_ROOT))
    config = replace(config, model_root=model_root, data_root=data_root)
    lacking = files.definitions.missing()
    if not lacking:
        with suppress(OSError):  # where it is a folder of the first machine alone, nothing is read from it
            os.chdir(files.folder)
        return config
    if not files.definitions.travels:
        raise _too_large(
            lacking,
            files.definitions,
            "the task definitions of this study with the data that lie beside them",
            "Put it there at the same path, or the data below a folder for --data-root.",
        )
    copy = _unpacked("definitions", files, fetch)
    look_below(copy)

    def moved(path: str) -> str:
        return str(copy / path.lstrip("/"))

    folder = Path(moved(files.folder))
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    return replace(
        config,
        task_folders=tuple(moved(folder) for folder in config.task_folders),
        import_from=tuple(moved(folder) for folder in config.import_from),
    )


def _data_root_here(
    root: str | None, files: NodeFiles, fetch: Callable[[Part], bytes | None], own: str | None
) -> str | None:
    """The data root of this machine: ``root``, that of the run, else its ``own``, else what travelled of ``root``.

    Its own is taken where it holds what the trials read. Raises as `placed`.
    """
    if root is None:
        holds = own and files.data_sets and all(is_folder(Path(own) / name) for name in files.data_sets)
        return own if holds else None
    lacking = files.data.missing()
    if not lacking and (own is None or is_folder(Path(root))):
        return root
    unlike = files.data.unlike(root, own) if own else []
    if own and not unlike:
        return own
    if not files.data.travels:
        but = f" {own}, which {DATA_ROOT} names there, lacks {unlike[0]} or has another file there." if own else ""
        raise _too_large(
            lacking,
            files.data,
            "the data sets of this study",
            f"Put it there at the same path, or let {DATA_ROOT} name a folder with the same data sets on that machine."
            + but,
        )
    return str(_unpacked("data", files, fetch) / root.lstrip("/"))


def _too_large(lacking: Sequence[str], group: FileGroup, what: str, remedy: str) -> ResourceError:
    more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
    return ResourceError(
        f"The machine {socket.gethostname()} has no {lacking[0]}{more} as it is on the first one, and {what} are "
        f"{group.size / 1e9:.1f} GB, too much to be sent ({MOST_BYTES / 1e9:.1f} GB). {remedy}"
    )


def _unpacked(part: Part, files: NodeFiles, fetch: Callable[[Part], bytes | None]) -> Path:
    """The folder with a copy of a group of files, by their paths without the first slash."""
    # imported here since some systems lack its locks; runs there need none
    from mosld_bench.scheduling.shared_folder import shared_folder

    def fill(folder: Path) -> None:
        with zipfile.ZipFile(io.BytesIO(fetch(part) or b"")) as archive:
            archive.extractall(folder)

    return shared_folder(getattr(files, part).name, fill)


def placed_model(spec: ModelSpec, model_root: str | None) -> ModelSpec:
    """A base model as this machine has it, of which ``model_root`` is the folder of models.

    A model that the study found in a folder which is not here is looked for there by its name. Raises ModelError where
    this machine has none, or another one.
    """
    root = Path(model_root) if model_root else None
    if spec.folder is None:
        location = Path(place(spec, root))
        if is_folder(location):
            check_revision(location, spec.revision, ModelError)
        return spec
    if is_folder(Path(spec.folder)):
        return spec
    here = f"The machine {socket.gethostname()}"
    folder = None if root is None else root / spec.name
    if folder is None or not is_folder(folder):
        raise ModelError(
            f"{here} has no model folder {spec.folder}{f', and no {folder}' if folder else ''}. Put the model there at "
            f"the same path, or let {MODEL_ROOT} name the folder on that machine in which it is {spec.name!r}."
        )
    if spec.revision is not None and (found := content_digest(folder)) != spec.revision:
        raise ModelError(
            f"{here} has another model in {folder} (its files have the digest {found}) than the study ({spec.folder}, "
            f"{spec.revision}). Put the same files there."
        )
    return spec.model_copy(update={"folder": str(folder)})


def _modules(folders: Sequence[str]) -> Iterator[Path]:
    """The files of modules that were imported from ``folders`` and are no part of an installed package."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        own = name.partition(".")[0] == "mosld_bench" or "site-packages" in str(file)
        if file and file.endswith(".py") and not own and any(Path(file).is_relative_to(folder) for folder in folders):
            yield Path(file)
