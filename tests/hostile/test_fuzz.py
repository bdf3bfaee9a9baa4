"""Readers that are given anything: they give a value or a sentence, within bounds.

Short in the default suite; ``MOSLD_BENCH_FUZZ_SECONDS=600 pytest -n 0 -m slow tests/hostile/test_fuzz.py`` takes ten
minutes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mosld_bench.errors import BenchError
from mosld_bench.inputs.model_check import check_folder, check_sizes
from mosld_bench.inputs.source_note import read_note
from mosld_bench.spec.budget import Budget
from mosld_bench.spec.plain_file import read_json
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.yaml_reader import read_file
from tests.conftest import REPOSITORY

SECONDS = float(os.environ.get("MOSLD_BENCH_FUZZ_SECONDS", "60"))

#: Files that are read, to be broken.
SEEDS = {
    "recipe": (REPOSITORY / "methods" / "mosld.yaml").read_bytes(),
    "study": (REPOSITORY / "reports" / "embedded" / "study.yaml").read_bytes(),
    "task": (REPOSITORY / "tasks" / "dialogsum.yaml").read_bytes(),
    "config": (REPOSITORY / "mosld_bench" / "embedded" / "model" / "config.json").read_bytes(),
}
PIECES = [
    b"&a ", b"*a", b"<<: ", b"!!set ", b"!function x.y", b"- ", b": ", b"? ", b"[", b"{", b"}", b"]", b"'", b'"',
    b"|\n", b"%",
    b"\xff", b"\x00", b"\xed\xa0\x80", b"\n", b"\t", b"---\n", b"...\n", b"9" * 400, b"1e999", b".nan", b"~",
    b"include: .\n",
    b"NaN", b"null", b"-1", b"\\u0000",
]  # fmt: skip

#: Keys of a study.
KEYS = [
    "name", "question", "model", "models", "recipes", "in_domain", "out_of_domain", "budgets", "seeds", "train",
    "evaluate", "parts", "ablate", "factorial", "general", "task_items", "tuning", "margin", "settings", "rates",
]  # fmt: skip

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def broken(draw: st.DrawFn, seed: bytes) -> bytes:
    """A file with some of its bytes cut, repeated or replaced."""
    content = bytearray(seed)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 40))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
        content[place : place + length] = piece * draw(st.sampled_from([1, 1, 1, 2, 50]))
    return bytes(content)


def _read(folder: Path, kind: str, content: bytes) -> None:
    """Read a file of a kind by all that reads such files."""
    names = {
        "recipe": "methods/bad.yaml",
        "study": "study.yaml",
        "task": "tasks/toy.yaml",
        "config": "model/config.json",
    }
    path = folder / names[kind]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    readers: dict[str, list[Callable[[], Any]]] = {
        "recipe": [lambda: read_file(path), lambda: Recipe.load(path)],
        "study": [lambda: read_file(path), lambda: Study.load(path)],
        "task": [lambda: _task(path)],
        "config": [lambda: read_json(path), lambda: check_folder("m", path.parent, weights=False)],
    }
    for reader in readers[kind]:
        _gives_a_value_or_a_sentence(reader)
    if kind == "config":
        (path.parent / "provenance.json").write_bytes(content)
        _gives_a_value_or_a_sentence(lambda: read_note(path.parent))


def _task(path: Path) -> None:
    files = TaskFiles.scan((path.parent,))
    for task in files.paths:
        for use in (files.check, files.digest, files.check_trainable, files.foreign_code, files.config):
            _gives_a_value_or_a_sentence(lambda use=use, task=task: use(task))  # type: ignore[misc]


def _gives_a_value_or_a_sentence(reader: Callable[[], Any]) -> None:
    began = time.process_time()
    said = "a value"
    try:
        reader()
    except BenchError as error:
        said = str(error)
    assert said.strip()
    assert time.process_time() - began < 5


def _fuzz(examples: int) -> Callable[[Any], Any]:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks)


@pytest.mark.parametrize("kind", SEEDS)
@_fuzz(25)
@given(data=st.data())
def test_a_broken_file_is_a_value_or_a_sentence(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    _read(tmp_path, kind, data.draw(broken(SEEDS[kind])))


@_fuzz(50)
@given(content=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_a_study_of_any_values_is_one_or_a_sentence(content: dict[str, Any]) -> None:
    _gives_a_value_or_a_sentence(lambda: Study.of(**content))


@_fuzz(50)
@given(text=st.text() | st.from_regex(r"[0-9.]{1,20}[kmb%]?|[a-z]{1,9}-r[0-9]{1,9}", fullmatch=True))
def test_a_budget_is_one_or_a_sentence(text: str) -> None:
    _gives_a_value_or_a_sentence(lambda: Budget.parse(text))


@_fuzz(50)
@given(
    config=st.dictionaries(
        st.sampled_from(["hidden_size", "num_attention_heads", "num_key_value_heads", "n_layer"]), VALUES
    )
)
def test_a_configuration_has_sizes_or_a_sentence(config: dict[str, Any]) -> None:
    _gives_a_value_or_a_sentence(lambda: check_sizes("m", config))


@pytest.mark.slow
def test_the_readers_hold_for_minutes(tmp_path: Path) -> None:
    """As above, for as long as the environment says, over all kinds by turns."""
    end = time.monotonic() + SECONDS

    @_fuzz(200)
    @given(data=st.data(), kind=st.sampled_from(sorted(SEEDS)))
    def rounds(data: st.DataObject, kind: str) -> None:
        _read(tmp_path, kind, data.draw(broken(SEEDS[kind])))

    count = 0
    while time.monotonic() < end:
        rounds()
        count += 1
    assert count, json.dumps(SECONDS)
