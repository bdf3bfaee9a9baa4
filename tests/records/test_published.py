"""The paper's numbers as data: complete, and with just the slips that were found by hand."""

from __future__ import annotations

import doctest
import shutil
from pathlib import Path

import pytest

from mosld_bench.errors import BadFileError, UnknownNameError
from mosld_bench.records import published
from mosld_bench.records.published import AVERAGE, FILES
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import TrainSpec
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "results" / "published"
PAPER = published.load(FOLDER)
ROWS = dict(zip(FILES, (126, 28, 20, 4, 30, 24), strict=True))


def test_doctests() -> None:
    assert doctest.testmod(published).failed == 0


@pytest.mark.parametrize("name", FILES)
def test_every_table(name: str) -> None:
    frame = published.scores(PAPER, name)
    assert list(frame.columns) == ["recipe", "setting", "task", "accuracy", "rank", "model"]
    assert len(frame) == ROWS[name]
    assert frame["accuracy"].between(0.15, 0.85).all(), "fractions, neither percent nor shares of a percent"
    assert not frame.drop(columns=["setting", "rank"]).isna().any(axis=None)
    assert not frame.duplicated(["recipe", "setting", "task", "rank", "model"]).any()
    assert set(frame["setting"].dropna()) <= {"single", "mixture"}


def test_the_tables_that_differ() -> None:
    location = published.scores(PAPER, "table2_location")
    assert list(location["recipe"].unique()) == ["mosld", "mosld-b"]
    assert location["rank"].isna().all()
    assert set(location["model"]) == {"llama2-7b"}
    rank = published.scores(PAPER, "table6_rank")
    assert sorted(rank["rank"].unique()) == [2, 4, 8, 16, 32]
    scaling = published.scores(PAPER, "table7_scaling")
    assert set(scaling["task"]) == {AVERAGE}
    assert set(scaling["model"]) == {"llama2-13b", "llama-33b"}
    parameters = published.scores(PAPER, "table5_parameters")
    assert parameters["setting"].isna().all()
    assert parameters["accuracy"].tolist() == pytest.approx([0.7038, 0.6957, 0.70, 0.7156])


def test_headline() -> None:
    frame = published.scores(PAPER, "table1_main")
    averages = frame[frame["task"] == AVERAGE].set_index(["setting", "recipe"])["accuracy"]
    assert averages["mixture"]["mosld"] - averages["mixture"]["mola"] == pytest.approx(0.0156)
    assert averages["mixture"]["mosld"] - averages["mixture"]["mosl"] == pytest.approx(0.0068)
    assert averages["single"]["mosld"] - averages["single"]["mosl"] == pytest.approx(0.0104)


def test_slips() -> None:
    """All that were found in the printed tables by hand, with the printed and the right value of each."""
    found = [(slip.table, slip.what, slip.file) for slip in published.slips(PAPER)]
    expected = [
        ("Table 1", ["41.70", "single", "prefix-tuning", "41.75"], "table1_main.csv"),
        ("Table 3", ["53.93", "mixture", "mosld", "54.93"], "table3_uncommon.csv"),
        ("Table 5", ["69.57", "lora", "single-task", "69.15"], "table5_parameters.csv"),
        (
            "Table 5",
            ["0.419, 2.228 and 1.389 B", "100 times too large", "4,194,304, 22,282,240 and 13,893,632"],
            "table5_parameters.csv",
        ),
        ("Table 5", ["6.572", "mosld", "two digits swapped", "6.752"], "table5_parameters.csv"),
        ("Table 6", ["76.70", "arc_easy", "76.60"], "table6_rank.csv"),
        ("Table 7", ["LoRA's results at 7B", "MoLoRA"], "table7_scaling.csv"),
    ]
    assert [(table, file) for table, _, file in found] == [(table, file) for table, _, file in expected]
    for (table, what, _), (_, parts, _) in zip(found, expected, strict=True):
        assert what.startswith(f"{table} prints ")
        assert what.endswith(".")
        assert all(part in what for part in parts), what


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "published"))


def change(folder: Path, name: str, old: str, new: str) -> list[str]:
    """The slips of the tables with one row changed."""
    path = folder / f"{name}.csv"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return [slip.what for slip in published.slips(published.load(folder))]


@pytest.mark.parametrize(
    ("name", "old", "new", "gone"),
    [
        ("table1_main", "prefix-tuning,single,average,41.70", "prefix-tuning,single,average,41.75", "41.70"),
        ("table3_uncommon", "mosld,mixture,average,53.93", "mosld,mixture,average,54.93", "53.93"),
        ("table5_parameters", ",0.419,69.57", ",0.419,69.15", "69.57"),
        ("table5_parameters", ",6.572,", ",6.752,", "6.572"),
        ("table6_rank", "mosld,mixture,8,arc_easy,76.70", "mosld,mixture,8,arc_easy,76.60", "76.70"),
    ],
)
def test_a_slip_is_computed_and_goes_when_it_is_mended(copy: Path, name: str, old: str, new: str, gone: str) -> None:
    before = [slip.what for slip in published.slips(published.load(copy))]
    after = change(copy, name, old, new)
    assert [what for what in before if what not in after] == [what for what in before if gone in what]
    assert len(after) == len(before) - 1


@pytest.mark.parametrize(
    ("name", "old", "new", "what"),
    [
        ("table2_location", "mosld-a,single,race,76.08", "mosld-a,single,race,76.10", "Table 1 has 76.08"),
        ("table3_uncommon", "lora,single,mctest,53.10", "lora,single,mctest,53.06", "Table 1 has 53.10"),
        ("table1_main", "full,single,average,67.24", "full,single,average,67.26", "is 67.24"),
        ("table5_parameters", ",2.228,", ",3.228,", "there are 22,282,240"),
    ],
)
def test_a_new_slip_is_found(copy: Path, name: str, old: str, new: str, what: str) -> None:
    assert any(what in slip for slip in change(copy, name, old, new))


def test_rounding_is_no_slip(copy: Path) -> None:
    assert change(copy, "table1_main", "full,single,average,67.24", "full,single,average,67.23") == [
        slip.what for slip in published.slips(PAPER)
    ]


def test_counts_as_an_argument() -> None:
    counts = {**published.parameter_counts(), "mosld": 13_893_633 + 10**7}
    assert any("1.389 B" in slip.what and "23,893,633" in slip.what for slip in published.slips(PAPER, counts))


def test_protocol_has_the_keys_of_a_study() -> None:
    found = PAPER.protocol
    for key in found.study:
        parent, _, last = key.rpartition(".")
        assert last in {"": Study, "train": TrainSpec}[parent].model_fields, key
    assert found.study["train.learning_rate"] == 3e-4
    assert found.study["train.max_length"] is None
    assert list(found.tasks) == found.study["in_domain"]
    assert (found.tasks["mctest"].train, found.tasks["mctest"].test) == (1330, 147)
    assert found.recipes["mosld"]["dropout_on"] == "weight"


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'table1_main'"):
        published.scores(PAPER, "table1")
    with pytest.raises(BadFileError, match=r"protocol\.yaml does not exist"):
        published.load(tmp_path)
    shutil.copytree(FOLDER, tmp_path / "part")
    (tmp_path / "part" / "table6_rank.csv").unlink()
    with pytest.raises(BadFileError, match=r"table6_rank\.csv does not exist; it holds numbers that the paper prints"):
        published.load(tmp_path / "part")
