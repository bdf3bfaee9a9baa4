"""Folders of adapters that ask for what is not in them, never come to an end, or are broken off."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.cases import NO_JSON, Case, Content, folder, loop, pipe, table
from tests.hostile.conftest import Refused
from tests.support.adapters import write_adapter

SCORE = ("score", "./model", "--adapter", "./adapter", "--tasks", "toy")
CONFIG, WEIGHTS = "adapter/adapter_config.json", "adapter/adapter_model.safetensors"


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of each of two methods on the embedded model."""
    root = tmp_path_factory.mktemp("adapters")
    for recipe in ("lora", "mosld"):
        write_adapter(root / recipe, recipe)
        config = root / recipe / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "model"}))
    return root


@pytest.fixture
def workspace(workspace: Path, adapters: Path) -> Path:
    """The workspace, with an adapter of LoRA."""
    shutil.copytree(adapters / "lora", workspace / "adapter")
    return workspace


def _changed(**keys: Any) -> Callable[[Path], None]:
    """The configuration that was there, with other ``keys``."""

    def write(path: Path) -> None:
        there = json.loads(_before(path).read_text(encoding="utf-8"))
        path.write_text(json.dumps(there | keys), encoding="utf-8")

    return write


def _cut(keep: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(keep(_before(path).read_bytes()))

    return write


def _before(path: Path) -> Path:
    """Where a case finds what was at ``path``: it is gone when its content is made."""
    return path.with_name(f"{path.name}.before")


def _head(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def keep(content: bytes) -> bytes:
        length = struct.unpack("<Q", content[:8])[0]
        head = json.loads(content[8 : 8 + length])
        change(head[next(name for name in head if name != "__metadata__")])
        text = json.dumps(head).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return _cut(keep)


ENDLESS = r"(([a-z._0-9]+)+)+!"
BAD_CONFIGS: dict[str, dict[str, Any]] = {
    **{f"r: {r}": {"r": r} for r in (0, -4, 10**7, 10**12, 10**30, "four", [4], None, 1.5)},
    "a pattern without end": {"target_modules": ENDLESS},
    "a pattern without end, of what is left out": {"exclude_modules": ENDLESS},
    "a pattern without end, of ranks": {"rank_pattern": {ENDLESS: 4}},
    "a rank beyond memory for one layer": {"rank_pattern": {"q_proj": 10**8}},
    "layers over and over": {"layer_replication": [[0, 4]] * 10**5},
    "modules that are not there": {"target_modules": ["nothing"]},
    "modules of no kind": {"target_modules": 5},
    "another library": {"megatron_config": {"a": 1}},
    "no type": {"peft_type": None},
    "a type of nobody": {"peft_type": "EVIL"},
    "a type that is code": {"peft_type": "evil:Class"},
    "another type": {"peft_type": "IA3"},
    "a mixture of too many": {"peft_type": "MIXTURE", "experts": 10**9},
    "tokens beyond memory": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 10**10, "task_type": "CAUSAL_LM"},
    "a base that is none": {"base_model_name_or_path": 5},
}

BAD_WEIGHTS: dict[str, Content | None] = {
    "empty": b"",
    "broken off": _cut(lambda content: content[: len(content) // 2]),
    "zeros": _cut(lambda content: bytes(len(content))),
    "a head of any length": _cut(lambda content: b"\xff" * 8 + content[8:]),
    "of another shape": _head(lambda tensor: tensor.update(shape=[1, 1])),
    "of a shape beyond memory": _head(lambda tensor: tensor.update(shape=[2**40, 2**20])),
    "backwards": _head(lambda tensor: tensor.update(data_offsets=[500, 0])),
    "a pipe": pipe,
    "a folder": folder,
    "gone": None,
}

ADAPTERS = [
    *(Case(f"adapter_config.json: {name}", SCORE, {CONFIG: content}) for name, content in NO_JSON.items()),
    *(Case(f"adapter_config.json: {kind.__name__}", SCORE, {CONFIG: kind}) for kind in (folder, pipe, loop)),
    *(Case(f"adapter: {name}", SCORE, {CONFIG: _changed(**keys)}) for name, keys in BAD_CONFIGS.items()),
    *(Case(f"numbers: {name}", SCORE, {WEIGHTS: content}) for name, content in BAD_WEIGHTS.items()),
    Case("numbers: a pickle alone", SCORE, {WEIGHTS: None, "adapter/adapter_model.bin": b"\x80\x04."}),
]


@pytest.mark.parametrize("case", table(*ADAPTERS))
def test_folders_of_adapters_are_refused(case: Case, refused: Refused, workspace: Path) -> None:
    for name in case.files:
        if (workspace / name).is_file():
            shutil.copy(workspace / name, _before(workspace / name))
    refused(case)


@pytest.mark.parametrize("recipe", ["lora", "mosld"])
def test_one_that_is_whole_is_scored(recipe: str, workspace: Path, adapters: Path) -> None:
    from tests.conftest import bench

    shutil.rmtree(workspace / "adapter")
    shutil.copytree(adapters / recipe, workspace / "adapter")
    config = workspace / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"of_another_day": 1, "peft_version": "9.9"}))
    done = bench(*SCORE, cwd=workspace)
    assert done.returncode == 0, done.stderr
    assert "does not know and passes over (of_another_day), and was written by PEFT 9.9" in done.stderr
