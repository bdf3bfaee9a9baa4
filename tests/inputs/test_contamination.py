"""Overlap of training and evaluation sets: planted leaks are found exactly, wording and chance are not reported."""

from __future__ import annotations

import doctest
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosld_bench.errors import DataError
from mosld_bench.inputs import contamination
from mosld_bench.inputs.contamination import Index, overlaps
from mosld_bench.inputs.items import sample
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.records.overlap import SHORTEST, Overlap
from mosld_bench.spec.trial import EvaluateSpec
from tests.conftest import REPOSITORY, write_task
from tests.support.texts import define_tasks, sentence, task_items


def only(rows: Sequence[Overlap]) -> Overlap:
    (row,) = rows
    return row


def against(train: Sequence[str], evaluated: Sequence[str], n: int = 13) -> Overlap:
    return only(Index({"evaluated": evaluated}, n).against("train", train))


def test_doctests() -> None:
    assert doctest.testmod(contamination).failed == 0


def test_a_planted_leak_is_found_exactly(tmp_path: Path) -> None:
    train, evaluated = [sentence(f"t{i}") for i in range(50)], [sentence(f"e{i}") for i in range(40)]
    clean = [sentence(f"c{i}") for i in range(20)]
    for i in range(7):  # 13 words of an evaluation item inside a training item, in another case and punctuation
        leak = evaluated[3 * i].split()[4:17]
        train[i] = f"{train[i]} {', '.join(leak).upper()} {sentence(f'more{i}')}"
    loader = define_tasks(tmp_path, train=train, clean=clean, evaluated=evaluated)
    leaked, other, none, _ = overlaps(loader, ["train", "clean"], ["evaluated", "clean"])
    assert (leaked.train, leaked.evaluated, leaked.n) == ("train", "evaluated", 13)
    assert (leaked.train_items, leaked.items, leaked.shared, leaked.exact) == (50, 40, 7, 0)
    assert leaked.example == " ".join(evaluated[0].split()[4:17])
    assert (other.evaluated, other.shared, other.example) == ("clean", 0, "")
    assert (none.train, none.evaluated, none.train_items, none.shared) == ("clean", "evaluated", 20, 0)


def test_only_items_that_are_scored_count(tmp_path: Path) -> None:
    evaluated = [sentence(f"e{i}") for i in range(40)]
    loader = define_tasks(tmp_path, train=evaluated, evaluated=evaluated)
    scored = EvaluateSpec(limit=10, sample_seed=3)
    row = only(overlaps(loader, ["train"], ["evaluated"], scored=scored))
    assert (row.items, row.shared, row.exact) == (10, 10, 10)
    first = sample(loader.get("evaluated"), 10, 3)[0]
    assert row.example == " ".join(evaluated[first].split()[:13])


def test_the_description_is_no_part_of_an_item(tmp_path: Path) -> None:
    define_tasks(tmp_path, train=[sentence("t")], evaluated=[sentence("e")])
    for name in ("train", "evaluated"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(path.read_text() + f"description: {sentence('description')}\n")
    assert only(overlaps(TaskLoader([tmp_path]), ["train"], ["evaluated"])).shared == 0


def test_the_answer_is_part_of_an_item(tmp_path: Path) -> None:
    text = sentence("q")
    write_task(tmp_path, "right", task_items([text], "blue"))
    write_task(tmp_path, "wrong", task_items([text], "red"))
    right, wrong = overlaps(TaskLoader([tmp_path]), ["right"], ["right", "wrong"])
    assert (right.shared, right.exact) == (1, 1)
    assert (wrong.shared, wrong.exact) == (1, 0)


def test_an_exact_item_counts_as_both() -> None:
    same = sentence("same")
    row = against([same.upper() + "!", sentence("t")], [same, sentence("e")])
    assert (row.shared, row.exact) == (1, 1)
    assert row.example == " ".join(same.split()[:13])


def test_one_word_less_is_no_overlap() -> None:
    run = sentence("run", 13).split()
    evaluated = [f"{sentence('a')} {' '.join(run)} {sentence('b')}"]
    for count, shared in ((12, 0), (13, 1)):
        for part in (run[:count], run[-count:]):
            assert against([f"{sentence('c')} {' '.join(part)} {sentence('d')}"], evaluated).shared == shared


def test_a_run_does_not_cross_items() -> None:
    run = sentence("run", 14).split()
    first, second = " ".join(run[:7]), " ".join(run[7:])
    train = [f"{sentence('a')} {first}", f"{second} {sentence('b')}"]
    assert against(train, [" ".join(run)]).shared == 0
    assert against([" ".join(run)], [f"{sentence('c')} {first}", f"{second} {sentence('d')}"]).shared == 0


def test_wording_is_not_overlap() -> None:
    wording = sentence("read the text and answer", 20)
    train = [f"{wording} {sentence(f't{i}')}" for i in range(60)]
    evaluated = [f"{wording} {sentence(f'e{i}')}" for i in range(30)]
    assert against(train, evaluated).shared == 0
    # Wording of one side only is wording too: one training item that quotes it, one evaluation item that does.
    assert against([train[0], sentence("t")], evaluated).shared == 0
    assert against(train, evaluated[:1]).shared == 0
    # Ten items and no more than a tenth of them are content.
    few = train[:10] + [sentence(f"more{i}") for i in range(50)]
    assert against(few, evaluated[:10] + [sentence(f"rest{i}") for i in range(20)]).shared == 10
    # Eleven are wording, though they are few enough among the evaluation items.
    few = train[:11] + few[11:]
    assert against(few, evaluated[:10] + [sentence(f"rest{i}") for i in range(20)]).shared == 0
    # An item that is all wording is still exact.
    assert against([wording] * 60, [wording] * 30).exact == 30
    assert against([wording] * 60, [wording] * 30).shared == 30


def test_short_items() -> None:
    eight, seven = sentence("eight", 8), sentence("seven", 7)
    inside = [f"{sentence('a')} {eight} {sentence('b')} {seven} {sentence('c')}"]
    assert against(inside, [eight, seven]).shared == 1
    assert against(inside, [eight, seven]).example == eight
    assert against(inside, [seven]).shared == 0
    row = against([seven], [eight, seven])
    assert (row.shared, row.exact, row.example) == (1, 1, seven)
    assert against(["?!", "..."], ["", "!"]).shared == 0  # no words, no content


def test_own_training_split_against_own_test_split(mirror: Path) -> None:
    """Counted by hand with pandas: 15 of OpenBookQA's 500 test items have question and answer of a training item."""
    loader = TaskLoader([REPOSITORY / "tasks"], mirror)
    row = only(overlaps(loader, ["openbookqa"], ["openbookqa"]))
    assert (row.train_items, row.items, row.exact) == (4957, 500, 15)
    assert row.shared >= row.exact


def test_a_task_that_cannot_be_trained_on(tmp_path: Path) -> None:
    write_task(tmp_path, "test_only", task_items([sentence("e")]), trains=False)
    with pytest.raises(DataError, match="no training split"):
        overlaps(TaskLoader([tmp_path]), ["test_only"], ["test_only"])


def test_n_below_one() -> None:
    with pytest.raises(ValueError, match="at least one word"):
        Index({}, 0)


def runs(item: list[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(item[i : i + length]) for i in range(len(item) - length + 1)}


def naive(train: list[list[str]], evaluated: list[list[str]], n: int) -> tuple[int, int]:
    """(shared, exact) as the docstring says it, every run against every item."""
    shared = exact = 0
    for item in evaluated:
        equal = bool(item) and item in train
        length = n if len(item) >= n else len(item)
        counts = False
        if len(item) >= n or len(item) >= SHORTEST:
            peers = [e for e in evaluated if (len(e) >= n if length == n else len(e) == length)]
            for run in runs(item, length):
                in_train = sum(run in runs(other, length) for other in train)
                in_evaluated = sum(run in runs(other, length) for other in peers)
                if 0 < in_train <= max(10, len(train) // 10) and in_evaluated <= max(10, len(evaluated) // 10):
                    counts = True
        exact += equal
        shared += equal or counts
    return shared, exact


TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=14), max_size=25)


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS, TEXTS, st.integers(1, 11))
def test_as_the_naive_count(train: list[list[str]], evaluated: list[list[str]], other: list[list[str]], n: int) -> None:
    joined = [[" ".join(item) for item in items] for items in (train, evaluated, other)]
    first, second = Index({"first": joined[1], "second": joined[2]}, n).against("train", joined[0])
    assert (first.shared, first.exact) == naive(train, evaluated, n)
    assert (second.shared, second.exact) == naive(train, other, n)
    for row, items in ((first, evaluated), (second, other)):
        assert (row.items, row.train_items) == (len(items), len(train))
        assert bool(row.example) == (row.shared > 0)
        if row.example:
            example = row.example.split()
            assert any(tuple(example) in runs(item, len(example)) for item in train)
            assert any(tuple(example) in runs(item, len(example)) for item in items)
