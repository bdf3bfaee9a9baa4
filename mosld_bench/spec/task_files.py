"""The files of task definitions: which there are, what they contain, and a digest of all that they read.

Light on purpose (no lm-eval, no torch), since planning needs it. The tasks themselves are built in ``tasks.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from mosld_bench.errors import BadFileError, DataError


class _Loader(yaml.SafeLoader):
    """Reads lm-eval's YAML without importing the functions that it names."""


_Loader.add_constructor("!function", lambda loader, node: f"!function {node.value}")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise BadFileError(f"{path} is not YAML: {error}") from error
    except FileNotFoundError:
        raise BadFileError(f"{path} is included by a task definition but does not exist.") from None
    return content if isinstance(content, dict) else {}


def data_files(config: dict[str, Any], folder: Path) -> Any:
    """``dataset_kwargs.data_files`` with every relative path that exists beside the YAML made absolute."""

    def absolute(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: absolute(item) for key, item in value.items()}
        if isinstance(value, list):
            return [absolute(item) for item in value]
        beside = folder / str(value)
        return str(beside) if beside.is_file() else value

    return absolute((config.get("dataset_kwargs") or {}).get("data_files"))


def leaves(value: Any) -> Iterator[str]:
    """The strings of a value nested in mappings and lists."""
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    elif value is not None:
        yield str(value)


@dataclass(frozen=True)
class TaskFiles:
    """Task name -> the YAML that defines it, over several folders; a later folder wins.

    `scan` raises DataError where a folder is not there, or two files in one define the same task.
    """

    paths: dict[str, Path]

    @classmethod
    def scan(cls, folders: tuple[Path, ...]) -> TaskFiles:
        found: dict[str, Path] = {}
        for folder in folders:
            if not folder.is_dir():
                raise DataError(f"{folder} is not a folder; --include-path takes a folder of lm-eval task files.")
            here: dict[str, Path] = {}
            for path in sorted(folder.rglob("*.yaml")):  # what lm-eval reads
                task = _read(path).get("task")
                if not isinstance(task, str):
                    continue
                if task in here:
                    raise DataError(f"{here[task]} and {path} both define the task {task!r}. Rename one of them.")
                here[task] = path
            found |= here
        return cls(found)

    def config(self, task: str) -> dict[str, Any] | None:
        """The definition with its includes resolved, or None for a task that is not in these folders."""
        return self._resolved(self.paths[task])[0] if task in self.paths else None

    def _resolved(self, path: Path) -> tuple[dict[str, Any], list[Path]]:
        own, read = _read(path), [path]
        merged: dict[str, Any] = {}
        include = own.pop("include", None)
        for name in [include] if isinstance(include, str) else include or []:
            base, files = self._resolved(path.parent / name)
            merged |= base
            read = files + read
        return {**merged, **own}, read

    def digest(self, task: str) -> str:
        """8 hex digits over the definition, its includes, its Python and its local data; lm-eval's version if built in.

        Titles and sizes change no number, so of ``metadata`` only ``group`` is taken, which moves the validation items.
        """
        if task not in self.paths:
            return f"lm-eval {version('lm-eval')}"
        path = self.paths[task]
        config, read = self._resolved(path)
        if "custom_dataset" not in config:  # lm-eval hands the metadata to such a function
            group = (config.pop("metadata", None) or {}).get("group")
            config |= {} if group is None else {"metadata": {"group": group}}
        content = hashlib.sha256(yaml.safe_dump(config, sort_keys=True).encode())
        beside = sorted({p for file in read for p in file.parent.glob("*.py")}) if "!function" in str(config) else []
        local = [Path(leaf) for leaf in leaves(data_files(config, path.parent))]
        for file in beside + [leaf for leaf in local if leaf.is_file()]:
            content.update(file.read_bytes())
        return content.hexdigest()[:8]

    def check_trainable(self, task: str) -> None:
        """Raises DataError for a task of these folders that has no training split."""
        config = self.config(task)
        if config is not None and not config.get("training_split"):
            raise DataError(
                f"The task {task!r} ({self.paths[task]}) has no training_split, so nothing can be trained on it. "
                f"Name it under out_of_domain (--out-of-domain), or add training_split to its definition."
            )
