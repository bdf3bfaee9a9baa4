"""YAML files: layers over each other, and mistakes that are named all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mosld_bench.errors import BadFileError, UnknownNameError
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.yaml_file import layered, read_including, read_yaml


def test_all_problems_of_a_file_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("titel: Bad\ngroup: minor\nlearning_rate_scale: 0\n")
    with pytest.raises(BadFileError) as error:
        Recipe.load(path)
    message = str(error.value)
    assert str(path) in message
    for part in (
        "5 problem(s)",
        "Did you mean 'title'?",
        "title: Field required",
        "method: Field required",
        "group",
        "learning_rate_scale",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"gone\.yaml does not exist"),
        ("a: [", r"file\.yaml is not YAML"),
        ("[a, b]", r"file\.yaml must hold a mapping of keys to values, not list"),
        ("", r"file\.yaml must hold a mapping of keys to values, not NoneType"),
    ],
)
def test_a_file_that_is_no_mapping_is_named(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / ("gone.yaml" if text is None else "file.yaml")
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadFileError, match=message):
        read_yaml(path)


def test_an_included_file_shows_through_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("a: 1\nmerged: {x: 1, y: 2}\nwhole: {x: 1, y: 2}\n")
    path = tmp_path / "top.yaml"
    path.write_text("include: base.yaml\nmerged: {y: 3}\nwhole: {y: 3}\n")
    assert read_including(path, ("merged",)) == {"a": 1, "merged": {"x": 1, "y": 3}, "whole": {"y": 3}}


def test_layers_leave_the_base_alone() -> None:
    base = {"train": {"steps": 4, "batch_size": 2}, "seeds": [0], "parts": []}
    changed = layered(base, {("train", "epochs"): 1, ("new", "key"): 2}, {"train.epochs": ("train.steps", "parts")})
    assert changed == {"train": {"batch_size": 2, "epochs": 1}, "seeds": [0], "new": {"key": 2}}
    assert base == {"train": {"steps": 4, "batch_size": 2}, "seeds": [0], "parts": []}
    with pytest.raises(UnknownNameError, match=r"no key named 'seeds\.first'"):
        layered(base, {("seeds", "first"): 1}, {})


@pytest.mark.parametrize(
    ("include", "problem"),
    [
        (".", "is a folder"),
        ("top.yaml", r"includes top\.yaml, which includes again"),
        ("[a.yaml]", r"top\.yaml, include: takes the name of one file"),
        ("gone.yaml", r"gone\.yaml does not exist"),
        ("large.yaml", r"large\.yaml has more than 1,048,576 bytes"),
    ],
)
def test_what_cannot_be_included_is_said(include: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "top.yaml").write_text(f"include: {include}\n")
    (tmp_path / "large.yaml").write_text("a: " + "x" * (1 << 20))
    with pytest.raises(BadFileError, match=problem):
        read_including(tmp_path / "top.yaml", ())


def test_a_long_value_is_not_printed_whole(tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    path.write_text(f"title: t\nmethod: peft\norder: {'x' * 5000}\n")
    with pytest.raises(BadFileError, match=r"order: Input should be a valid integer") as error:
        Recipe.load(path)
    assert len(str(error.value)) < 500
