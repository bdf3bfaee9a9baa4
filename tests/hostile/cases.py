"""What the tables of this folder are made of: the files of a workspace, a change to them, and a command."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TASK = """task: toy
dataset_path: json
dataset_kwargs: {data_files: {train: toy.jsonl, test: toy.jsonl}}
training_split: train
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}?"
doc_to_choice: options
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0, kind: toy, title: Toy}
"""

STUDY = """question: Does it run?
model: {name: embedded}
recipes: [lora]
in_domain: [toy]
budgets: [6k]
budget_tolerance: 0.2
seeds: [0]
train: {steps: 2, batch_size: 4, learning_rate: 1.0e-2, max_length: 64}
"""

ROWS: list[dict[str, Any]] = [
    {"question": f"what is {row}", "options": ["a", "b", "cc"], "answer": row % 3} for row in range(12)
]

#: The bytes of a file, or what makes one at a path.
Content = str | bytes | Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """A command in a workspace whose ``files`` (path -> content; None: gone) were changed, to be refused."""

    name: str
    words: tuple[str, ...]
    files: Mapping[str, Content | None] = field(default_factory=dict)

    def prepare(self, root: Path) -> None:
        """Change the files of the workspace."""
        for name, content in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink() or path.is_file():
                path.unlink()
            if callable(content):
                content(path)
            elif isinstance(content, bytes):
                path.write_bytes(content)
            elif content is not None:
                path.write_text(content, encoding="utf-8", errors="surrogateescape")


def table(*cases: Case) -> list[Any]:
    """The cases as parameters of a test. Every eighth is of the default suite, the others are marked as slow."""
    return [
        pytest.param(
            case, id=case.name.encode("unicode_escape").decode(), marks=[pytest.mark.slow] if place % 8 else []
        )
        for place, case in enumerate(cases)
    ]


def folder(path: Path) -> None:
    """A folder in place of a file."""
    path.mkdir()


def pipe(path: Path) -> None:
    """A pipe that nobody writes to."""
    os.mkfifo(path)


def loop(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    """A link to what is not there."""
    path.symlink_to("not-there")


def endless(path: Path) -> None:
    """A link to a device that never ends."""
    path.symlink_to("/dev/zero")


#: What no file of settings is, by name.
NO_SETTINGS: dict[str, Content] = {
    "latin-1": "title: caf\xe9\n".encode("latin-1"),
    "utf-16": "title: Bad\n".encode("utf-16"),
    "bytes": bytes(range(256)) * 8,
    "a folder": folder,
    "a pipe": pipe,
    "a loop": loop,
    "a dangling link": dangling,
    "a device": endless,
    "empty": "",
    "a list": "- 1\n",
    "a number": "5\n",
    "too large": "a: " + "x" * 1_100_000,
    "too deep": "a: " + "[" * 20_000,
    "a bomb": "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
    "a cycle": "a: &a [*a]\n",
    "digits": "a: " + "9" * 5_000 + "\n",
    "a NUL": "a: \x00\n",
    "a set": "a: !!set {b}\n",
    "python": "a: !!python/object/apply:os.system ['true']\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "a key twice": "a: 1\na: 2\n",
    "not finite": "a: .nan\n",
}

#: What no JSON file is.
NO_JSON: dict[str, Content] = {
    "half": "{",
    "a list": "[]",
    "null": "null",
    "empty": "",
    "bytes": bytes(range(256)),
    "latin-1": b'{"a": "\xe9"}',
    "too deep": "[" * 100_000,
    "digits": '{"hidden_size": ' + "9" * 5_000 + "}",
    "not finite": '{"hidden_size": NaN}',
}


def rows(*changed: Mapping[str, Any]) -> str:
    """The data of the toy task with other values in one row each."""
    other = dict(enumerate(changed, start=6))
    lines = [row | dict(other.get(index, {})) for index, row in enumerate(ROWS)]
    return "".join(json.dumps(line) + "\n" for line in lines)


def replaced(text: str, old: str, new: str) -> str:
    """``text`` with ``new`` in place of ``old``, which is in it."""
    assert old in text, old
    return text.replace(old, new)
