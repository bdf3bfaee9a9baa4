"""A study for programs: of a name with keys on top, or of keys alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from mosld_bench import BenchError, Study
from mosld_bench.errors import BadFileError
from tests.conftest import REPOSITORY

FILE = REPOSITORY / "reports" / "embedded" / "study.yaml"


def test_keys_lie_on_top_of_a_named_study() -> None:
    study = Study.of("embedded", root=REPOSITORY, name="short", recipes=["lora"], seeds=[0], train={"steps": 20})
    base = Study.load(FILE)
    assert (study.name, study.recipes, study.seeds) == ("short", ("lora",), (0,))
    assert study.train is not None
    assert base.train is not None
    assert study.train == base.train.model_copy(update={"steps": 20, "epochs": None})
    assert study == Study.load(FILE, {"name": "short", "recipes": ["lora"], "seeds": [0], "train.steps": 20})


@pytest.mark.parametrize("source", [FILE, str(FILE), FILE.parent, "embedded"])
def test_a_name_a_folder_and_a_file_are_the_same_study(source: Path | str) -> None:
    assert Study.of(source, root=REPOSITORY) == Study.load(FILE)


def test_keys_alone_are_a_study() -> None:
    study = Study.of(
        name="mine", question="Which?", model="embedded", recipes="all", in_domain=["emb_world"], train={"steps": 5}
    )
    assert (study.name, study.model_names, study.in_domain) == ("mine", "embedded", ("emb_world",))
    assert study.train is not None
    assert study.train.steps == 5


def test_a_search_is_taken_in_by_its_file(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"nothing\.yaml"):
        Study.of(name="mine", question="Which?", model="embedded", tuning=str(tmp_path / "nothing.yaml"))


def test_every_problem_of_the_keys_is_named() -> None:
    with pytest.raises(BadFileError, match="the study that is given by its keys has 2 problem") as error:
        Study.of(name="mine", model="embedded", budgetz=["60k"])
    assert "question: Field required" in str(error.value)
    assert "Did you mean 'budgets'" in str(error.value)
