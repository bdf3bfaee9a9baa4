"""The files of task definitions: which there are, what they contain, and a digest of all that they read.

Light on purpose (no lm-eval, no torch), since planning needs it. `inputs/tasks.py` builds the tasks themselves.
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
    """The mapping in a file; empty where it holds something else, which is for lm-eval to report."""
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
    """The task definitions of some folders, as they stand in their files.

    ``paths``: task name -> the YAML file that defines it. Tasks that lm-eval brings along are not among them.
    """

    paths: dict[str, Path]

    @classmethod
    def scan(cls, folders: tuple[Path, ...]) -> TaskFiles:
        """The definitions in and below ``folders``; where two folders define a task, the later one wins.

        Raises DataError where a folder is not there, or two files in one define the same task.
        """
        paths: dict[str, Path] = {}
        for folder in folders:
            if not folder.is_dir():
                raise DataError(f"{folder} is not a folder; --include-path takes a folder of lm-eval task files.")
            in_folder: dict[str, Path] = {}
            for path in sorted(folder.rglob("*.yaml")):  # what lm-eval reads
                task = _read(path).get("task")
                if not isinstance(task, str):
                    continue
                if task in in_folder:
                    raise DataError(f"{in_folder[task]} and {path} both define the task {task!r}. Rename one of them.")
                in_folder[task] = path
            paths |= in_folder
        return cls(paths)

    def config(self, task: str) -> dict[str, Any] | None:
        """The definition with its includes resolved, or None for a task that is not in these folders.

        A function of the definition's Python is its name, as text: ``!function helper.text``.
        """
        return self._resolved(self.paths[task])[0] if task in self.paths else None

    def _resolved(self, path: Path) -> tuple[dict[str, Any], list[Path]]:
        """The content of a file with its includes resolved, and every file that was read for it."""
        content, files = _read(path), [path]
        included: dict[str, Any] = {}
        include = content.pop("include", None)
        for name in [include] if isinstance(include, str) else include or []:
            base, base_files = self._resolved(path.parent / name)
            included |= base
            files = base_files + files
        return {**included, **content}, files

    def digest(self, task: str) -> str:
        """8 hex digits over the definition, its includes, its Python and its local data; lm-eval's version if built in.

        Titles and sizes change no number, so of ``metadata`` only ``group`` is taken, which moves the validation items.
        """
        if task not in self.paths:
            return f"lm-eval {version('lm-eval')}"
        path = self.paths[task]
        config, files = self._resolved(path)
        if "custom_dataset" not in config:  # lm-eval hands the metadata to such a function
            group = (config.pop("metadata", None) or {}).get("group")
            config |= {} if group is None else {"metadata": {"group": group}}
        content = hashlib.sha256(yaml.safe_dump(config, sort_keys=True).encode())
        code = sorted({source for file in files for source in file.parent.glob("*.py")})
        data = [Path(leaf) for leaf in leaves(data_files(config, path.parent))]
        for file in (code if "!function" in str(config) else []) + [file for file in data if file.is_file()]:
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
