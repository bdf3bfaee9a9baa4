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

CARD, ORIGINAL = "README.md", "README.hub.md"


def restore(folder: Path) -> None:
    """Put the hub's own card back, if it was trimmed."""
    if (folder / ORIGINAL).is_file():
        (folder / ORIGINAL).replace(folder / CARD)


def trim(folder: Path, files: Sequence[str]) -> None:
    """Take the configurations off the card that need other data than ``files`` (relative paths)."""
    path = folder / CARD
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    rest, content = _split(text)
    configs = content.get("configs")
    if not isinstance(configs, list):
        return
    kept = [one for one in configs if all(any(fnmatchcase(f, glob) for f in files) for glob in _globs(one))]
    if len(kept) == len(configs):
        return
    names = {one.get("config_name", "default") for one in kept}
    told = content.get("dataset_info")
    told = [told] if isinstance(told, dict) else told or []
    infos = [info for info in told if info.get("config_name", "default") in names]
    left = {key: value for key, value in content.items() if key not in {"configs", "dataset_info"}}
    left |= ({"configs": kept} if kept else {}) | ({"dataset_info": infos} if infos else {})
    path.replace(folder / ORIGINAL)
    path.write_text(f"---\n{yaml.safe_dump(left, sort_keys=False, allow_unicode=True)}---{rest}", encoding="utf-8")


def glob_of(leaf: str) -> str:
    """A pattern of data_files by the hub's rule, by which a star also stands for folders."""
    return leaf.removeprefix("./").replace("**/", "*")


def _split(text: str) -> tuple[str, dict[str, Any]]:
    """(what follows the YAML at the beginning of the card, that YAML); no YAML is an empty one."""
    head, end, rest = text.removeprefix("---").partition("\n---")
    try:
        content = yaml.safe_load(head) if text.startswith("---\n") and end else None
    except yaml.YAMLError:
        content = None
    return (rest, content) if isinstance(content, dict) else (text, {})


def _globs(config: Any) -> Iterator[str]:
    """The patterns of a configuration, each of which must find a file."""
    if not isinstance(config, dict):
        return
    if config.get("data_dir"):
        yield f"{config['data_dir']}/*"
    waiting = [config.get("data_files")]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            waiting += [one["path"]] if "path" in one else list(one.values())
        elif one is not None:
            yield glob_of(str(one))
