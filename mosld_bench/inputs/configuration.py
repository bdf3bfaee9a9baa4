"""Which files of a data set in a local folder are the configuration that a task names.

The hub's data sets have a card that lists their configurations. A folder that somebody filled by hand has none, and the
data sets library then knows one configuration, of all files.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mosld_bench.inputs.dataset_card import lists_configurations

_SPLITS = frozenset({"train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval"})
_SUFFIXES = frozenset({".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt"})


class Configuration(NamedTuple):
    """A folder to be read and the configuration in it, None for the only one."""

    folder: Path
    name: str | None


def configuration(folder: Path, name: str | None) -> Configuration:
    """Where the configuration ``name`` of the data set in ``folder`` is.

    As the card says, where it lists any; else the folder of that name in ``folder``; else ``folder`` itself, where its
    files are one of each split (``train.jsonl``) or its parts, so that they cannot be of several configurations.
    """
    if name is None or lists_configurations(folder):
        return Configuration(folder, name)
    if (folder / name).is_dir():
        return Configuration(folder / name, None)
    return Configuration(folder, None if _of_one(folder) else name)


def _of_one(folder: Path) -> bool:
    names = [path.stem for path in folder.iterdir() if path.suffix in _SUFFIXES]
    splits = [name.partition("-")[0] for name in names if "-of-" not in name]
    return bool(names) and len(set(splits)) == len(splits) and {n.partition("-")[0] for n in names} <= _SPLITS
