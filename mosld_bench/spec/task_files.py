"""The files of task definitions: which there are, what they contain, and a digest of all that they read.

Light on purpose (no lm-eval, no torch), since planning needs it. `inputs/tasks.py` builds the tasks themselves.
"""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mosld_bench.errors import BadFileError, DataError
from mosld_bench.spec.foreign_code import foreign_function
from mosld_bench.spec.names import problem_of_task
from mosld_bench.spec.plain_file import is_folder, is_regular
from mosld_bench.spec.yaml_reader import read_file

#: Most files that a definition may be made of, so that files which include others twice come to an end.
MAX_FILES = 100

#: Keys of lm-eval's definitions that are true or false. To it any text is true, the word "no" too.
_TRUTH_VALUES = frozenset(
    {
        "higher_is_better", "do_sample", "should_decontaminate", "unsafe_code", "ignore_case", "ignore_punctuation",
        "ignore_numbers", "fewshot_as_multiturn", "trust_remote_code", "streaming",
    }
)  # fmt: skip

#: Folders that lm-eval does not look into: what is there was not put there as a task.
_IGNORED = frozenset({"__pycache__", ".ipynb_checkpoints"})

#: lm-eval's output type of tasks that score whole documents.
ROLLING = "loglikelihood_rolling"

FunctionOf = Callable[[str, Path], Any]
"""Makes a value of what follows ``!function`` in a file of the folder given."""


_FUNCTION = "!function "


def named(function: str, folder: Path) -> str:
    """A function as its name, for whoever asks what a definition says: ``!function helper.text``."""
    return f"{_FUNCTION}{function}"


def _read(path: Path, function_of: FunctionOf = named) -> dict[str, Any]:
    """The mapping in a file; empty where it holds something else, which is for lm-eval to report."""
    content = read_file(path, lambda function: function_of(function, path.parent))
    if not isinstance(content, dict):
        return {}
    for key, value in _entries(content):
        if key in _TRUTH_VALUES and isinstance(value, str):
            raise BadFileError(f"{path}, {key}: takes true or false; given: the word {value[:40]!r}.")
    return content


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of nested mappings and lists, with its value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _including(
    path: Path, function_of: FunctionOf, within: tuple[Path, ...], read: list[Path]
) -> tuple[dict[str, Any], list[Path]]:
    """What `TaskFiles` says of a file that the files ``within`` include; ``read``: every file read so far."""
    if within and not _same(path, path):  # unlike exists(), for a name of any length
        raise BadFileError(f"{path} is included by a task definition but does not exist ({within[-1]}).")
    read.append(path)
    if len(read) > MAX_FILES:
        raise BadFileError(f"{(*within, path)[0]} is made of more than {MAX_FILES} files by its includes.")
    content, files = _read(path, function_of), [path]
    metadata = content.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise BadFileError(f"{path}, metadata: must be a mapping of keys to values, not {type(metadata).__name__}.")
    include = content.pop("include", None)
    names = [include] if isinstance(include, str) else include or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadFileError(f"{path}, include: takes a file or a list of files; given: {str(include)[:60]}.")
    included: dict[str, Any] = {}
    for name in names:
        other = path.parent / name
        if any(_same(other, one) for one in (*within, path)):
            raise BadFileError(f"{path} includes {name}, which includes it in turn, or is the file itself.")
        base, base_files = _including(other, function_of, (*within, path), read)
        base.pop("task_list", None)  # as lm-eval has it: tasks of the included file alone
        included |= base
        files = base_files + files
    return {**included, **content}, files


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are of one file."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def data_files(config: dict[str, Any], folder: Path) -> Any:
    """``dataset_kwargs.data_files`` with what each path names on this machine, as absolute literal paths.

    A path that is one file becomes its path, a folder or a pattern (``*``, ``?``, ``[...]``, ``**``) the list of its
    files in order. ``folder``: of the YAML file, where a path is looked for first, then in the current folder. What
    is found in neither stays as it is, as does an address: it may be a file of a data set of the hub.
    """
    options = config.get("dataset_kwargs") or {}
    base = data_dir(config, folder) or folder

    def absolute(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: absolute(item) for key, item in value.items()}
        if isinstance(value, list):
            return [found for item in value for found in _as_list(absolute(item))]
        return value if value is None else _named(str(value), base)

    return absolute(options.get("data_files"))


def data_dir(config: dict[str, Any], folder: Path) -> Path | None:
    """``dataset_kwargs.data_dir`` where it is a folder beside the YAML file (in ``folder``), or an absolute one."""
    named = (config.get("dataset_kwargs") or {}).get("data_dir")
    return _folder(str(named), folder) if named else None


def data_set_folder(config: dict[str, Any], folder: Path) -> Path | None:
    """``dataset_path`` where it is a folder beside the YAML file (in ``folder``), or an absolute one.

    One with files or a folder of its own (``data_files``, ``data_dir``) is a format, such as ``json``.
    """
    named, options = config.get("dataset_path"), config.get("dataset_kwargs") or {}
    if not named or "data_files" in options or "data_dir" in options:
        return None
    return _folder(str(named), folder)


def _folder(named: str, folder: Path) -> Path | None:
    """The folder that ``named`` is in ``folder``, or by itself; None where there is none."""
    places = [folder / named, *(copy / named.lstrip("/") for copy in _copies if Path(named).is_absolute())]
    return next((place.absolute() for place in places if is_folder(place)), None)


#: Below these, absolute paths of another machine are looked for as well.
_copies: list[Path] = []


def look_below(root: Path) -> None:
    """From now on an absolute path that is not here is looked for below ``root``, a copy of another machine's files."""
    _copies.append(root)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _named(path: str, folder: Path) -> str | list[str]:
    """What ``path`` names in ``folder``, else in the current one; ``path`` where it names nothing."""
    if "://" in path:
        return path
    copies = [(copy, path.lstrip("/")) for copy in _copies if Path(path).is_absolute()]
    for base, place in ((folder.absolute(), path), (Path.cwd(), path), *copies):
        if is_regular(base / place):  # before it is taken for a pattern: a name may have brackets
            return str(base / place)
        found = files_in(base / place) if is_folder(base / place) else _matching(place, base)
        if found:
            return [str(file) for file in found]
    return path


def _matching(pattern: str, folder: Path) -> list[Path]:
    """The files that ``pattern`` matches below ``folder``, in order.

    Folders at its beginning that are there by just that name are taken by it: a name may have brackets.
    """
    base, parts = folder, Path(pattern).parts
    while len(parts) > 1 and is_folder(base / parts[0]):
        base, parts = base / parts[0], parts[1:]
    whole = f"{glob.escape(str(base))}/{Path(*parts)}"
    paths = glob.glob(whole, recursive=True)  # noqa: PTH207  # Path.glob takes no absolute pattern
    return sorted(Path(path) for path in paths if is_regular(Path(path)))


def files_in(folder: Path) -> list[Path]:
    """The files in and below ``folder``, in order, without what is hidden."""
    paths = (path for path in folder.rglob("*") if is_regular(path))
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts))


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


def _python_beside(files: Iterable[Path]) -> list[Path]:
    """The Python in the folders of the ``files`` of a definition, in order: what its functions may be of."""
    found = {source for file in files for source in file.parent.glob("*.py")}
    return sorted(source for source in found if is_regular(source))  # an editor's lock is a link to nothing


def _data(config: dict[str, Any], folder: Path) -> Iterator[tuple[Path, bool]]:
    """Every local data file that a definition reads, and whether its path names this one file."""
    options = config.get("dataset_kwargs") or {}
    if "data_files" in options:
        for path in leaves(options["data_files"]):
            found = data_files({"dataset_kwargs": {**options, "data_files": path}}, folder)
            yield from ((Path(file), not isinstance(found, list)) for file in _as_list(found) if is_regular(Path(file)))
    elif whole := data_dir(config, folder) or data_set_folder(config, folder):
        yield from ((file, False) for file in files_in(whole))


#: Key of a definition -> its type, and that in words.
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "metadata": (dict, "keys with values"),
    "dataset_kwargs": (dict, "keys with values"),
    "description": (str, "a text"),
    "target_delimiter": (str, "a text"),
    "fewshot_delimiter": (str, "a text"),
    "dataset_path": (str, "a text"),
    "training_split": (str, "the name of a split"),
    "validation_split": (str, "the name of a split"),
    "test_split": (str, "the name of a split"),
    "output_type": (str, "a text"),
    "metric_list": (list, "a list"),
    "filter_list": (list, "a list"),
    "generation_kwargs": (dict, "keys with values"),
    "fewshot_config": (dict, "keys with values"),
    "num_fewshot": (int, "a whole number"),
}
#: Keys that take Python and nothing else.
_FUNCTIONS = ("process_docs", "process_results", "custom_dataset", "class")

#: What reads local data: formats that hold data alone.
_FORMATS = ("json", "csv", "parquet", "arrow", "text")

#: Formats of `datasets` that a definition with local files does not need, since they are read by code that is theirs.
_REFUSED_FORMATS = frozenset({"pandas", "generator", "spark", "sql", "webdataset", "cache", "iceberg"})

_NEEDED = {"doc_to_text": "what the prompt is", "doc_to_target": "what the right answer is",
           "doc_to_choice": "what the options are"}  # fmt: skip


def _problems(config: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the values of a definition, beside their types."""
    if str(config.get("dataset_path")) in _REFUSED_FORMATS:
        yield f"dataset_path: {config['dataset_path']} is not read; files are {', '.join(_FORMATS)}"
    if any(key == "trust_remote_code" and value for key, value in _entries(config)):
        yield "trust_remote_code: no code of a data set is run; leave it out"
    fewshot = config.get("num_fewshot")
    if isinstance(fewshot, int) and not 0 <= fewshot <= MAX_FEWSHOT:
        yield f"num_fewshot: must be 0 to {MAX_FEWSHOT:,}, not {fewshot}"
    repeats = config.get("repeats", 1)
    if type(repeats) is not int or not 1 <= repeats <= MAX_REPEATS:
        yield f"repeats: must be a whole number from 1 to {MAX_REPEATS:,}, not {str(repeats)[:40]}"
    writing = config.get("generation_kwargs")
    for key, value in writing.items() if isinstance(writing, dict) else ():
        if key == "until" and not (isinstance(value, str | None) or _are_texts(value)):
            yield f"generation_kwargs.until: must be a text or a list of texts, not {repr(value)[:40]}"
        if key.startswith("max_") and not (type(value) is int and 1 <= value <= MAX_TOKENS):
            yield f"generation_kwargs.{key}: must be 1 to {MAX_TOKENS:,} tokens, not {repr(value)[:40]}"
        if key in {"temperature", "top_p", "top_k"} and not (type(value) in {int, float} and value >= 0):
            yield f"generation_kwargs.{key}: must be a number, 0 or more, not {repr(value)[:40]}"
    for key in ("metric_list", "filter_list"):
        if isinstance(config.get(key), list) and not all(isinstance(entry, dict) for entry in config[key]):
            yield f"{key}: must be a list of mappings"


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


#: Most tokens of an answer.
MAX_TOKENS = 10**6

#: Most solved examples that a prompt shows, and most answers that are asked for of one item.
MAX_FEWSHOT, MAX_REPEATS = 1000, 1000

#: Raised when the code trains or scores the same definition on another text, for the definitions of `_worded_otherwise`
#: and those that lm-eval brings along: a record of the former text must not be taken for one of the new.
_WORDING = 2


def _worded_otherwise(config: dict[str, Any]) -> bool:
    """Whether the definition has something that was trained otherwise than scored, or read otherwise, before."""
    description = str(config.get("description") or "")
    return (
        any(config.get(key) for key in ("gen_prefix", "num_fewshot"))
        or "{" in description
        or description.isidentifier()  # a column of the data
        or str(config.get("output_type", "")).startswith("loglikelihood")
        or config.get("dataset_path") == "csv"
    )


class UnreadableTask(NamedTuple):
    """A file of a task folder that cannot be read: why not, and the task that it defines as far as that can be told."""

    path: Path
    reason: str
    task: str | None


_TASK_LINE = re.compile(r"""^task:[ \t]*["']?([^\s"'#]+)""", re.M)


def _seems_to_define(path: Path) -> str | None:
    """The task that a file which cannot be read would define, by its line ``task:``; None without one."""
    if not is_regular(path):  # a pipe waits for who writes to it
        return None
    try:
        with path.open("rb") as file:
            line = _TASK_LINE.search(file.read(1 << 16).decode(errors="replace"))
    except OSError:
        return None
    return line[1] if line else None


@dataclass(frozen=True)
class TaskFiles:
    """The task definitions of some folders, as they stand in their files.

    ``paths``: task name -> the YAML file that defines it. Tasks that lm-eval brings along are not among them.
    ``unreadable``: the files that cannot be read; each stops what asks for its task and nothing else. ``groups``: names
    that stand for several tasks.
    """

    paths: dict[str, Path]
    unreadable: tuple[UnreadableTask, ...] = ()
    groups: frozenset[str] = frozenset()

    @classmethod
    def scan(cls, folders: tuple[Path, ...]) -> TaskFiles:
        """The definitions in and below ``folders``; where two folders define a task, the later one wins.

        Unreadable are also a name that no task can have, and a task that two files of one folder define.

        Raises DataError where a folder is not there.
        """
        paths, unreadable, groups = dict[str, Path](), list[UnreadableTask](), set[str]()
        for folder in folders:
            if not is_folder(folder):
                raise DataError(
                    f"{str(folder)[:200]} is not a folder; --include-path takes a folder of lm-eval task files."
                )
            in_folder, out = cls._scan(folder, groups)
            unreadable += out
            lost = {file.task for file in out}  # nor is it taken from an earlier folder, whose place it is to take
            paths = {task: path for task, path in (paths | in_folder).items() if task not in lost}
        return cls(paths, tuple(unreadable), frozenset(groups))

    @staticmethod
    def _scan(folder: Path, groups: set[str]) -> tuple[dict[str, Path], list[UnreadableTask]]:
        """What a folder defines, and its files that cannot be read; its groups are added to ``groups``."""
        paths, unreadable = dict[str, Path](), list[UnreadableTask]()
        for path in sorted(folder.rglob("*.yaml")):  # what lm-eval reads
            if not _IGNORED.isdisjoint(path.parts):
                continue
            try:
                content = _read(path)
            except BadFileError as error:
                unreadable.append(UnreadableTask(path, str(error), _seems_to_define(path)))
                continue
            task = content.get("task")
            if not isinstance(task, str):
                groups.update(filter(None, [content.get("group")] if isinstance(content.get("group"), str) else []))
                continue
            if problem := problem_of_task(task):
                reason = f"{path}, task: the name of a task {problem}; given: {task[:40]!r}."
            elif task in paths:
                reason = f"{paths[task]} and {path} both define the task {task!r}. Rename one of them."
            else:
                paths[task] = path
                continue
            unreadable.append(UnreadableTask(path, reason, task))
        return paths, unreadable

    def check_named(self, task: str) -> None:
        """Raises BadFileError where the file that defines ``task`` cannot be read."""
        if task not in self.paths:
            for file in self.unreadable:
                if file.task == task:
                    raise BadFileError(f"The task {task!r} cannot be used: {file.reason}")

    def config(self, task: str, function_of: FunctionOf = named) -> dict[str, Any] | None:
        """The definition with its includes resolved, or None for a task that is not in these folders.

        A function of the definition's Python is what ``function_of`` makes of it; its name, as text, where that is
        left out. Raises BadFileError for files that cannot be read, or that include each other.
        """
        self.check_named(task)
        return self._resolved(self.paths[task], function_of)[0] if task in self.paths else None

    def _resolved(self, path: Path, function_of: FunctionOf = named) -> tuple[dict[str, Any], list[Path]]:
        """The content of a file with its includes resolved, and every file that was read for it."""
        return _including(path, function_of, (), [])

    def digest(self, task: str) -> str:
        """8 hex digits over the definition, its includes, its Python and its local data; lm-eval's version if built in.

        Titles and sizes change no number, so of ``metadata`` only ``group`` is taken, which moves the validation items.
        """
        self.check_named(task)
        if task not in self.paths:
            return f"lm-eval {version('lm-eval')}, wording {_WORDING}"
        path = self.paths[task]
        config, files = self._resolved(path)
        if "custom_dataset" not in config:  # lm-eval hands the metadata to such a function
            group = (config.pop("metadata", None) or {}).get("group")
            config |= {} if group is None else {"metadata": {"group": group}}
        content = hashlib.sha256(yaml.safe_dump(config, sort_keys=True).encode())
        if _worded_otherwise(config):
            content.update(f"\0wording {_WORDING}".encode())
        for file in _python_beside(files) if "!function" in str(config) else []:
            content.update(file.read_bytes())
        for file, named in _data(config, path.parent):
            if not named:  # of several files also how the rows lie in them, as a name may decide on the split
                content.update(f"\0{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as rows:
                while part := rows.read(2**20):
                    content.update(part)
        return content.hexdigest()[:8]

    def files_of(self, task: str) -> list[Path]:
        """Every file that the definition of ``task`` is made of: includes, Python beside them, and local data.

        Empty for a task that is not of these folders. Raises as `config`.
        """
        self.check_named(task)
        if task not in self.paths:
            return []
        config, files = self._resolved(self.paths[task])
        return [*files, *_python_beside(files), *(file for file, _ in _data(config, self.paths[task].parent))]

    def foreign_code(self, task: str) -> list[str]:
        """The foreign code that a task of these folders names (`foreign_code`), in words; none of it is run."""
        found: list[str] = []

        def noted(function: str, folder: Path) -> str:
            found.extend(filter(None, [foreign_function(function, folder)]))
            return named(function, folder)

        self.config(task, noted)
        return list(dict.fromkeys(found))

    def check(self, task: str) -> None:
        """Raises BadFileError for a definition of these folders with keys that lm-eval trips over, all at once."""
        config = self.config(task) or {}
        problems = [
            f"{key}: must be {words}, not {repr(config[key])[:200]}"
            for key, (kind, words) in _KINDS.items()
            if config.get(key) is not None and not isinstance(config[key], kind)
        ]
        problems += [
            f"{key}: must be a !function, not {str(config[key])[:200]!r}"
            for key in _FUNCTIONS
            if config.get(key) is not None and not str(config[key]).startswith(_FUNCTION)
        ]
        problems += list(_problems(config))
        if "class" not in config and "use_prompt" not in config:
            output_type = str(config.get("output_type"))
            needed = ["doc_to_target"]
            needed += ["doc_to_choice"] if output_type == "multiple_choice" else []
            needed += ["doc_to_text"] if "rolling" not in output_type else []
            problems += [f"{key}: is missing; it says {_NEEDED[key]}" for key in needed if config.get(key) is None]
        if problems:
            raise BadFileError(f"The task {task!r} ({self.paths[task]}) cannot be used. {'; '.join(problems)}.")

    def check_trainable(self, task: str) -> None:
        """Raises DataError for a task of these folders that has no training split."""
        config = self.config(task)
        if config is not None and not config.get("training_split"):
            raise DataError(
                f"The task {task!r} ({self.paths[task]}) has no training_split, so nothing can be trained on it. "
                f"Name it under out_of_domain (--out-of-domain), or add training_split to its definition."
            )

    def check_text(self, task: str) -> None:
        """Raises DataError for a task of these folders that does not score whole texts."""
        config = self.config(task)
        if config is not None and config.get("output_type") != ROLLING:
            raise not_rolling(task, str(self.paths[task]), config.get("output_type"))


def not_rolling(task: str, where: str, output_type: str | None) -> DataError:
    """The error for a task at ``where`` that is to give a held-out text and has another ``output_type``."""
    return DataError(
        f"evaluate.text: the task {task!r} ({where}) has the output_type {output_type}; its loss a token is taken of a "
        f"task of output_type {ROLLING}, whose documents are the text. Name such a task, or leave evaluate.text out."
    )
