"""`mosld-bench fetch STUDY --to DIR`: the study's data sets as DIR/ORGANISATION/DATASET, to be given as --data-root.

Of a data set only what its tasks read is fetched: their ``data_files``; else the folder of their ``dataset_name``,
whole, since loading misses splits that the data set's card lists; else every file that could be data. The card is cut
down to the configurations that are there (`dataset_card.py`).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mosld_bench.errors import DataError, fetch_hint
from mosld_bench.inputs.dataset_card import CARD, ORIGINAL, glob_of, restore_card, trim_card
from mosld_bench.inputs.download import aside, download
from mosld_bench.inputs.hub import why_nothing_came
from mosld_bench.inputs.source_note import DATA_SOURCE, NOTE, check_revision, holds_data, read_note, write_note
from mosld_bench.spec.task_files import leaves

DATA_FILES = ("*.parquet", "*.json*", "*.csv*", "*.tsv*", "*.txt", "*.arrow")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NO_DATA = {CARD, ORIGINAL, NOTE, "dataset_infos.json", "LICENSE.txt"}
_SPLIT_KEYS = ("training_split", "validation_split", "test_split", "fewshot_split")
#: How files of a split may be called, as the data sets library has it.
_SPLIT_WORDS = {"validation": ("valid", "dev", "val"), "test": ("test", "eval"), "train": ("train",)}


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one task reads of a data set of the hub."""

    task: str
    dataset: str
    revision: str | None
    patterns: tuple[str, ...]  # of the files to fetch
    listed: bool  # by data_files: then every pattern must be met
    needs: tuple[tuple[str, ...], ...]  # in a folder made by hand: for each of these, a file that matches one

    @classmethod
    def of(cls, task: str, config: Mapping[str, Any]) -> Part | None:
        """What ``task`` reads by its definition, includes resolved; None where its data are not on the hub."""
        dataset = str(config.get("dataset_path") or "")
        if not _HUB_ID.fullmatch(dataset) or Path(dataset).is_dir() or config.get("custom_dataset") is not None:
            return None
        options = config.get("dataset_kwargs") or {}
        splits = {name for key in _SPLIT_KEYS if config.get(key) for name in _split_names(str(config[key]))}
        name, folder = config.get("dataset_name"), options.get("data_dir")
        patterns = tuple(glob_of(leaf) for leaf in leaves(options.get("data_files")) if _on_the_hub(leaf))
        listed, roots = bool(patterns), [""]
        if not listed and (folder or name):
            roots = [f"{folder}/"] if folder else [f"{name}/", "data/"]
            patterns = tuple(f"{root}*" for root in roots)
        needs = [
            tuple(f"{root}*{word}*" for root in roots for word in (split, *_SPLIT_WORDS.get(split, ())))
            for split in sorted(splits)
        ]
        if listed:
            needs = [(pattern,) for pattern in patterns]
        return cls(
            task=task,
            dataset=dataset,
            revision=options.get("revision"),
            patterns=patterns or DATA_FILES,
            listed=listed,
            needs=tuple(needs),
        )


def fetch_data(
    configs: Mapping[str, Mapping[str, Any] | None], to: Path, say: Callable[[str], None] = lambda line: None
) -> list[Path]:
    """Fetch the data of the tasks ``configs`` (name -> its definition, includes resolved; None for one built in).

    Returns the folders, each data set once. Files that are there already stay, and those that these tasks lack are
    added. ``say`` is called with a line for every step. Raises DataError where the hub refuses or is out of reach,
    where two things want one folder, and where a data set has no files that a task could read.
    """
    parts_of: dict[str, list[Part]] = {}  # data set -> what the tasks read of it
    for task, config in configs.items():
        if config is None:
            say(f"{task} is built into lm-eval and not among the task files: its data are not fetched")
        elif (part := Part.of(task, config)) is not None:
            parts_of.setdefault(part.dataset, []).append(part)
    for dataset, parts in parts_of.items():
        revisions = {part.revision or "main": part.task for part in parts}
        if len(revisions) > 1:
            raise DataError(
                f"The data set {dataset!r} is asked for at {len(revisions)} revisions ("
                f"{', '.join(f'{revision} by the task {task}' for revision, task in revisions.items())}), but a folder "
                f"holds one. Name one revision in their dataset_kwargs, or fetch them --to different folders."
            )
    return [_fetch(to / dataset, parts, say) for dataset, parts in parts_of.items()]


def _fetch(target: Path, parts: Sequence[Part], say: Callable[[str], None]) -> Path:
    """One data set, done aside and renamed; into its folder where that is there and lacks something."""
    dataset, revision = parts[0].dataset, parts[0].revision
    with aside(target, revision) as folder:
        if folder is not None:
            say(f"asking the hub for the data set {dataset}")
            _download(folder, parts)
            return target
        if (target / "config.json").is_file() and not holds_data(target):
            raise DataError(
                f"The data set {dataset!r} cannot go to {target}, which holds a model (it has a config.json). Fetch it "
                f"to another folder by --to."
            )
        check_revision(target, revision or "main", DataError)
        lacking = [part for part in parts if not _complete(target, part)]
        if lacking:
            say(f"asking the hub for what {', '.join(part.task for part in lacking)} lacks of {dataset}")
            _download(target, lacking)
        else:
            say(f"{dataset} is there")
    return target


def _download(folder: Path, parts: Sequence[Part]) -> None:
    """The files of ``parts``; every data file where a part's own patterns find none. Notes what was fetched."""
    previous = read_note(folder)
    by_hand = not previous and any(_data_files(folder)) and not (folder / ".cache").is_dir()
    patterns = sorted({pattern for part in parts for pattern in part.patterns})
    restore_card(folder)
    _from_hub(folder, parts, patterns)
    if any(not _matching(folder, part.patterns) for part in parts):
        patterns = sorted({*patterns, *DATA_FILES})
        _from_hub(folder, parts, patterns)
    for part in parts:
        if not _satisfied(folder, part, patterns):
            raise DataError(
                f"The data set {part.dataset!r} on the hub has no files that the task {part.task!r} could read (looked "
                f"for {', '.join(part.patterns)}). Check dataset_path, dataset_name and dataset_kwargs of the task; "
                f"scripts that load data are not run."
            )
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    trim_card(folder, _data_files(folder))
    content = {
        "source": f"{DATA_SOURCE}{parts[0].dataset}",
        "revision": parts[0].revision or "main",
        "patterns": sorted({*previous.get("patterns", []), *patterns}),
    }
    if by_hand or "note" in previous:
        content["note"] = "fetched into a folder that was there; older files are of unknown origin"
    write_note(folder, content)


def _from_hub(folder: Path, parts: Sequence[Part], patterns: Iterable[str]) -> None:
    """Download what matches ``patterns``. Raises DataError where the hub refuses or is out of reach."""
    from huggingface_hub.errors import HfHubHTTPError

    dataset, tasks = parts[0].dataset, ", ".join(part.task for part in parts)
    try:
        download(dataset, folder, revision=parts[0].revision, patterns=[CARD, *patterns], repo_type="dataset")
    except HfHubHTTPError as error:
        raise DataError(
            f"The hub refuses the data set {dataset!r} of {tasks}: {error}. Check dataset_path and the revision; "
            f"a gated data set needs HF_TOKEN."
        ) from error
    except Exception as error:  # no network has many faces
        raise DataError(
            f"The hub cannot be reached for the data set {dataset!r} of {tasks} ({why_nothing_came(error)}). "
            f"{fetch_hint('STUDY', '--data-root')}"
        ) from error


def _complete(folder: Path, part: Part) -> bool:
    """Whether the folder has what ``part`` reads: as noted when it was fetched, else by the names of its splits."""
    fetched = read_note(folder).get("patterns", [])
    if set(part.patterns) <= set(fetched):
        return _satisfied(folder, part, fetched)
    return bool(_matching(folder, DATA_FILES)) and all(_matching(folder, need) for need in part.needs)


def _satisfied(folder: Path, part: Part, fetched: Iterable[str]) -> bool:
    """Whether files came for ``part``: for each of its data_files, or by any pattern that was fetched for it."""
    if part.listed:
        return all(_matching(folder, need) for need in part.needs)
    return bool(_matching(folder, part.patterns)) or (
        set(DATA_FILES) <= set(fetched) and bool(_matching(folder, DATA_FILES))
    )


def _data_files(folder: Path) -> list[str]:
    """Files that could be data, relative to the folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts)
    return [path.relative_to(folder).as_posix() for path in files if path.name not in _NO_DATA]


def _matching(folder: Path, patterns: Iterable[str]) -> list[str]:
    """Data files that match one of ``patterns`` by the hub's rule, by which a star also stands for folders."""
    globs = tuple(patterns)
    return [name for name in _data_files(folder) if any(fnmatchcase(name, glob) for glob in globs)]


def _split_names(split: str) -> list[str]:
    """The splits in a term such as ``train[:90%]+validation``."""
    return [name for term in split.split("+") if (name := re.split(r"\[", term)[0].strip())]


def _on_the_hub(leaf: str) -> bool:
    return "://" not in leaf and not Path(leaf).is_absolute()
