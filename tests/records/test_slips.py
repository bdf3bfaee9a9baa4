"""The slips of the paper's tables: just those that were found by hand, and none for rounding."""

from __future__ import annotations

import doctest
import shutil
from pathlib import Path

import pytest

from mosld_bench.records import slips as module
from mosld_bench.records.published import Published
from mosld_bench.records.slips import parameter_counts, slips
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "results" / "published"
PAPER = Published.load(FOLDER)


def test_doctests() -> None:
    assert doctest.testmod(module).failed == 0


def test_slips() -> None:
    """All that were found in the printed tables by hand, with the printed and the right value of each."""
    expected = [
        ("Table 1", ["41.70", "single", "prefix-tuning", "41.75"], "table1_main"),
        ("Table 3", ["53.93", "mixture", "mosld", "54.93"], "table3_uncommon"),
        ("Table 5", ["69.57", "lora", "single-task", "69.15"], "table5_parameters"),
        (
            "Table 5",
            ["0.419, 2.228 and 1.389 B", "100 times too large", "4,194,304, 22,282,240 and 13,893,632"],
            "table5_parameters",
        ),
        ("Table 5", ["6.572", "mosld", "two digits swapped", "6.752"], "table5_parameters"),
        ("Table 6", ["76.70", "arc_easy", "76.60"], "table6_rank"),
        (
            "Table 7",
            ["81.94", "mosld on commonsense_qa (single, llama-33b)", "Table 4 has 81.49", "only 81.49", "78.05"],
            "table7_scaling",
        ),
        ("Table 7", ["LoRA's results at 7B", "MoLoRA"], "table7_scaling"),
    ]
    computed = slips(PAPER)
    assert [(slip.number, slip.name) for slip in computed] == [(number, name) for number, _, name in expected]
    for slip, (number, parts, _) in zip(computed, expected, strict=True):
        assert slip.sentence.startswith(f"{number} prints ")
        assert slip.sentence.endswith(".")
        assert all(part in slip.sentence for part in parts), slip.sentence


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "published"))


def sentences(folder: Path) -> list[str]:
    return [slip.sentence for slip in slips(Published.load(folder))]


def change(folder: Path, name: str, old: str, new: str) -> list[str]:
    """The slips of the tables with one row changed."""
    path = folder / f"{name}.csv"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return sentences(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "gone"),
    [
        ("table1_main", "prefix-tuning,single,average,41.70", "prefix-tuning,single,average,41.75", "41.70"),
        ("table3_uncommon", "mosld,mixture,average,53.93", "mosld,mixture,average,54.93", "53.93"),
        ("table5_parameters", ",0.419,69.57", ",0.419,69.15", "69.57"),
        ("table5_parameters", ",6.572,", ",6.752,", "6.572"),
        ("table6_rank", "mosld,mixture,8,arc_easy,76.70", "mosld,mixture,8,arc_easy,76.60", "76.70"),
        ("table7_scaling", "commonsense_qa,81.94,81.49", "commonsense_qa,81.49,", "81.94"),
    ],
)
def test_a_slip_is_computed_and_goes_when_it_is_mended(copy: Path, name: str, old: str, new: str, gone: str) -> None:
    before = sentences(copy)
    after = change(copy, name, old, new)
    assert [sentence for sentence in before if sentence not in after] == [s for s in before if gone in s]
    assert len(after) == len(before) - 1


@pytest.mark.parametrize(
    ("name", "old", "new", "part"),
    [
        ("table2_location", "mosld-a,single,race,76.08", "mosld-a,single,race,76.10", "Table 1 has 76.08"),
        ("table3_uncommon", "lora,single,mctest,53.10", "lora,single,mctest,53.06", "Table 1 has 53.10"),
        ("table1_main", "full,single,average,67.24", "full,single,average,67.26", "is 67.24"),
        ("table5_parameters", ",2.228,", ",3.228,", "there are 22,282,240"),
        ("table7_scaling", "commonsense_qa,81.94,81.49", "commonsense_qa,81.94,", "is 78.13"),
        ("table7_scaling", "commonsense_qa,81.94,81.49", "commonsense_qa,81.94,82.49", "is 78.13"),
    ],
)
def test_a_new_slip_is_found(copy: Path, name: str, old: str, new: str, part: str) -> None:
    assert any(part in sentence for sentence in change(copy, name, old, new))


def test_rounding_is_no_slip(copy: Path) -> None:
    assert change(copy, "table1_main", "full,single,average,67.24", "full,single,average,67.23") == sentences(FOLDER)


def test_counts_as_an_argument() -> None:
    counts = {**parameter_counts(), "mosld": 13_893_633 + 10**7}
    texts = [slip.sentence for slip in slips(PAPER, counts)]
    assert any("1.389 B" in sentence and "23,893,633" in sentence for sentence in texts)
