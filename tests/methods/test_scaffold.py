"""`methods new`: the names that it takes, and that what it writes passes its own test."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import yaml

from mosld_bench.errors import BenchError
from mosld_bench.methods.scaffold import KINDS, write_package
from tests.conftest import REPOSITORY
from tests.support.commands import python


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Half", "cannot name a method"),
        ("2half", "cannot name a method"),
        ("half rank", "cannot name a method"),
        ("half-", "cannot name a method"),
        ("half_rank", "such as 'half-rank'"),
        ("../half", "cannot name a method"),
        ("", "cannot name a method"),
        ("h" * 41, "at most 40 characters"),
        ("peft", "is that of a method already"),
        ("lora", "is that of a recipe, or a word for several of them"),
        ("everything", "a word for several of them"),
        ("class", "a word of Python's own"),
        ("json", "is that of a module of Python already"),
        ("mosld-bench", "is that of a module of Python already"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError) as told:
        write_package(name, tmp_path, methods=["peft", "mixture"], recipes=["lora", "everything"])
    assert words in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_a_kind_that_is_none_and_a_type_of_peft_are_refused(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    with pytest.raises(BenchError, match="is there already"):
        write_package("half", tmp_path)
    with pytest.raises(BenchError, match=r"no kind of method named 'tunner'\. Did you mean 'tuner'"):
        write_package("other", tmp_path, kind="tunner")
    with pytest.raises(BenchError, match="PEFT has a method of the type HIRA already"):
        write_package("hira", tmp_path, kind="tuner")
    assert [path.name for path in tmp_path.rglob("*")] == ["half"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_passes_its_own_test(kind: str, tmp_path: Path) -> None:
    files = write_package("half-rank", tmp_path, kind=kind)
    root = tmp_path / "half-rank"
    assert {str(path.relative_to(root)) for path in files} == {
        "pyproject.toml", "README.md", "half_rank/__init__.py", "half_rank/recipes/half-rank.yaml",
        "tests/test_half_rank.py",
    }  # fmt: skip
    code = (root / "half_rank" / "__init__.py").read_text()
    assert "y = W0 x + scale * U silu(D x)" in (ast.get_docstring(ast.parse(code)) or "")
    if kind == "module":
        assert len([line for line in code.splitlines() if line.strip()]) <= 40
    env = {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", "PATH": str(Path(sys.executable).parent)}
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=root, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    recipe = yaml.safe_load((root / "half_rank" / "recipes" / "half-rank.yaml").read_text())
    assert (recipe["method"], recipe["group"]) == ("half-rank", "own")
