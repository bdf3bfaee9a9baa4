"""The card of a data set (README.md) in a folder that holds only some of its configurations.

The data sets library looks at the first configuration that a card lists, whichever is asked for, and finds no data
where its files were not fetched. So the card of such a folder lists what is there; the hub's own stays beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from mosld_bench.errors import BadFileError
from mosld_bench.spec.plain_file import read_text_file
from mosld_bench.spec.yaml_reader import read_text

CARD, ORIGINAL = "README.md", "README.hub.md"


def restore_card(folder: Path) -> None:
    """Put the hub's own card back, if it was trimmed."""
    if (folder / ORIGINAL).is_file():
        (folder / ORIGINAL).replace(folder / CARD)


def trim_card(folder: Path, files: Sequence[str]) -> None:
    """Take the configurations off the card that need other data than ``files`` (paths relative to ``folder``).

    The card as it was stays beside it (`ORIGINAL`); a folder without a card, or with a card that lists none, is left.
    """
    path = folder / CARD
    if not path.is_file():
        return
    rest, content = _split(path)
    configs = content.get("configs")
    if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
        return
    kept = [config for config in configs if all(any(fnmatchcase(f, glob) for f in files) for glob in _globs(config))]
    if len(kept) == len(configs):
        return
    names = [config.get("config_name", "default") for config in kept]
    infos = content.get("dataset_info")
    infos = infos if isinstance(infos, list) else [infos]
    kept_infos = [info for info in infos if isinstance(info, dict) and info.get("config_name", "default") in names]
    trimmed = {key: value for key, value in content.items() if key not in {"configs", "dataset_info"}}
    trimmed |= ({"configs": kept} if kept else {}) | ({"dataset_info": kept_infos} if kept_infos else {})
    path.replace(folder / ORIGINAL)
    path.write_text(f"---\n{yaml.safe_dump(trimmed, sort_keys=False, allow_unicode=True)}---{rest}", encoding="utf-8")


def lists_configurations(folder: Path) -> bool:
    """Whether the data set in ``folder`` has a card that lists its configurations."""
    card = folder / CARD
    return card.is_file() and bool(_split(card)[1].get("configs"))


def glob_of(leaf: str) -> str:
    """A pattern of data_files by the hub's rule, by which a star also stands for folders."""
    return leaf.removeprefix("./").replace("**/", "*")


def _split(card: Path) -> tuple[str, dict[str, Any]]:
    """(what follows the YAML at the beginning of the card, that YAML); no YAML is an empty one."""
    try:
        text = read_text_file(card, needed="the card of a data set")
    except BadFileError:
        return "", {}
    head, end, rest = text.removeprefix("---").partition("\n---")
    try:
        content = read_text(head, CARD) if text.startswith("---\n") and end else None
    except BadFileError:
        content = None
    return (rest, content) if isinstance(content, dict) else (text, {})


def _globs(config: dict[str, Any]) -> Iterator[str]:
    """The patterns of a configuration, each of which must find a file."""
    if config.get("data_dir"):
        yield f"{config['data_dir']}/*"
    waiting = [config.get("data_files")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += [value["path"]] if "path" in value else list(value.values())
        elif value is not None:
            yield glob_of(str(value))
