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
    base = {"train": {"steps": 4, "batch_size": 2}, "seeds": [0]}
    changed = layered(base, {("train", "epochs"): 1, ("new", "key"): 2}, {"train.epochs": "train.steps"})
    assert changed == {"train": {"batch_size": 2, "epochs": 1}, "seeds": [0], "new": {"key": 2}}
    assert base == {"train": {"steps": 4, "batch_size": 2}, "seeds": [0]}
    with pytest.raises(UnknownNameError, match=r"no key named 'seeds\.first'"):
        layered(base, {("seeds", "first"): 1}, {})
