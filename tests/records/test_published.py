"""The paper's numbers as data: complete, exact, and refused where a file is damaged."""

from __future__ import annotations

import doctest
import shutil
from decimal import Decimal
from pathlib import Path

import pytest

from mosld_bench.errors import BadFileError, UnknownNameError
from mosld_bench.records import published
from mosld_bench.records.published import AVERAGE, TABLES, Published
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import TrainSpec
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "results" / "published"
PAPER = Published.load(FOLDER)
ROWS = dict(zip(TABLES, (126, 28, 20, 4, 30, 168), strict=True))


def test_doctests() -> None:
    assert doctest.testmod(published).failed == 0


@pytest.mark.parametrize("name", TABLES)
def test_every_table(name: str) -> None:
    scores = PAPER.scores(name)
    assert len(scores) == ROWS[name]
    assert all(15 < score.percent < 90 for score in scores), "in per cent, neither fractions nor shares of a percent"
    assert all(score.recipe and score.task and score.model for score in scores)
    keys = {(score.recipe, score.setting, score.task, score.rank, score.model) for score in scores}
    assert len(keys) == len(scores)
    assert {score.setting for score in scores} <= {"single", "mixture", None}


def test_the_tables_that_differ() -> None:
    location = PAPER.scores("table2_location")
    assert list(dict.fromkeys(score.recipe for score in location)) == ["mosld", "mosld-b"]
    assert {(score.rank, score.model) for score in location} == {(None, "llama2-7b")}
    ranks = [score.rank for score in PAPER.scores("table6_rank") if score.rank is not None]
    assert sorted(set(ranks)) == [2, 4, 8, 16, 32]
    scaling = PAPER.scores("table7_scaling")
    assert {score.task for score in scaling} == {*PAPER.protocol.tasks, AVERAGE}
    assert {score.model for score in scaling} == {"llama2-13b", "llama-33b"}
    rows = {(score.recipe, score.setting, score.model) for score in scaling}
    assert len(rows) == len({recipe for recipe, _, _ in rows}) * 4 == 24
    (elsewhere,) = (score for score in scaling if score.table4)
    assert (elsewhere.recipe, elsewhere.setting, elsewhere.task) == ("mosld", "single", "commonsense_qa")
    assert (elsewhere.model, elsewhere.text, elsewhere.table4) == ("llama-33b", "81.94", "81.49")
    parameters = PAPER.scores("table5_parameters")
    assert {score.setting for score in parameters} == {None}
    assert [score.text for score in parameters] == ["70.38", "69.57", "70.00", "71.56"]
    assert [(count.trainable, count.forward) for count in PAPER.counts.values()] == [
        ("6.738", "6.738"),
        ("0.419", "6.743"),
        ("2.228", "6.761"),
        ("1.389", "6.572"),
    ]


def test_headline() -> None:
    averages = {
        (score.setting, score.recipe): score.percent for score in PAPER.scores("table1_main") if score.task == AVERAGE
    }
    assert averages["mixture", "mosld"] - averages["mixture", "mola"] == Decimal("1.56")
    assert averages["mixture", "mosld"] - averages["mixture", "mosl"] == Decimal("0.68")
    assert averages["single", "mosld"] - averages["single", "mosl"] == Decimal("1.04")


def test_an_average_stands_with_the_scores_of_its_row() -> None:
    averages = {(a.printed.recipe, a.printed.setting): a for a in PAPER.averages("table1_main")}
    assert all(len(average.scores) == 6 for average in averages.values())
    assert averages["prefix-tuning", "single"].slipped
    assert float(averages["prefix-tuning", "single"].mean) == pytest.approx(41.75, abs=0.005)
    assert sum(average.slipped for average in averages.values()) == 1
    assert PAPER.averages("table6_rank") == PAPER.averages("table5_parameters") == []
    larger = {(a.printed.recipe, a.printed.setting, a.printed.model): a for a in PAPER.averages("table7_scaling")}
    assert all(len(average.scores) == 6 for average in larger.values())
    assert [key for key, average in larger.items() if average.slipped] == [("mosld", "single", "llama-33b")]


def test_what_is_a_slip_is_known_as_it_was_meant() -> None:
    """An average as the mean of its scores; a score as Table 4 has it where that gives the printed average."""
    (average,) = (printed for printed in PAPER.right("table3_uncommon") if printed.task == AVERAGE)
    assert (average.text, PAPER.right("table3_uncommon")[average]) == ("53.93", Decimal("54.93"))
    (score,) = PAPER.right("table7_scaling")
    assert (score.task, PAPER.right("table7_scaling")[score]) == ("commonsense_qa", Decimal("81.49"))
    assert PAPER.right("table2_location") == {}


def test_protocol_has_the_keys_of_a_study() -> None:
    protocol, fields = PAPER.protocol, {"": Study.model_fields, "train": TrainSpec.model_fields}
    for key in protocol.study:
        parent, _, last = key.rpartition(".")
        assert last in fields[parent], key
    assert protocol.study["train.learning_rate"] == 3e-4
    assert protocol.study["train.max_length"] is None
    assert list(protocol.tasks) == protocol.study["in_domain"]
    assert (protocol.tasks["mctest"].train, protocol.tasks["mctest"].test) == (1330, 147)
    assert protocol.recipes["mosld"]["dropout_on"] == "weight"


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'table1_main'"):
        PAPER.scores("table1")
    with pytest.raises(BadFileError, match=r"protocol\.yaml does not exist"):
        Published.load(tmp_path)
    shutil.copytree(FOLDER, tmp_path / "part")
    (tmp_path / "part" / "table6_rank.csv").unlink()
    with pytest.raises(BadFileError, match=r"table6_rank\.csv does not exist"):
        Published.load(tmp_path / "part")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("table1_main", "accuracy", "score"),  # the column
        ("table1_main", "75.74", "75-74"),
        ("table1_main", "75.74", "7574"),
        ("table7_scaling", "81.94,81.49", "81.94,8149"),
        ("table5_parameters", "6.572", "many"),
        ("table6_rank", "mixture,16,", "mixture,high,"),
    ],
)
def test_a_damaged_table_is_named(name: str, old: str, new: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "published"))
    path = folder / f"{name}.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BadFileError, match=rf"{name}\.csv is no table of the paper"):
        Published.load(folder)
