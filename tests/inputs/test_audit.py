"""The look at every item: what it finds in data that are wrong in one place, and that it finds nothing elsewhere."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.errors import DataError
from mosld_bench.inputs.audit import Checked, Problem, Use, Vocabulary, audit, refuse, uses_of, whole
from mosld_bench.inputs.audit_cache import AuditCache
from mosld_bench.inputs.items import held_out
from mosld_bench.inputs.rendering import training_example
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.selection import GeneralSweep
from mosld_bench.spec.trial import EvaluateSpec, TrainSpec
from tests.conftest import REPOSITORY
from tests.support.models import tokenizer
from tests.support.synthetic import make_study, make_trials

Row = dict[str, Any]
ITEMS = 30
CHOICE: Mapping[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{story}} {{question}}",
    "doc_to_choice": "options",
    "doc_to_target": "answer",
}
TEXT: Mapping[str, Any] = {
    "output_type": "generate_until",
    "doc_to_text": "{{story}} {{question}}",
    "doc_to_target": "{{options[answer]}}",
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def rows(split: str, count: int = ITEMS) -> list[Row]:
    """Clean items; the right answers are spread over all places."""
    return [
        {
            "id": f"{split}{index}",
            "story": f"It is day {index} of the {split}.",
            "question": "Who came?",
            "options": [f"{word} {index}" for word in ("ann", "bob", "eve")],
            "answer": index % 3,
        }
        for index in range(count)
    ]


def define(
    folder: Path, definition: Mapping[str, Any], splits: Mapping[str, Sequence[Row]], name: str = "asked"
) -> TaskLoader:
    """A task of these rows in ``folder``, and a loader that knows it."""
    folder.mkdir(exist_ok=True)
    for split, items in splits.items():
        (folder / f"{name}_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items))
    content = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: f"{name}_{split}.jsonl" for split in splits}},
        "training_split": "train",
        "test_split": "test",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        **definition,
    }
    (folder / f"{name}.yaml").write_text(json.dumps(content))  # JSON is YAML
    return TaskLoader([folder])


def found(loader: TaskLoader, name: str = "asked", vocabularies: Sequence[Vocabulary] = ()) -> list[Problem]:
    checked = audit(loader, whole(loader.get(name)), vocabularies)
    return [problem for one in checked for problem in one.problems]


def _set(**values: Any) -> Callable[[Row], None]:
    return lambda row: row.update(values)


def _blank(row: Row) -> None:
    row["options"] = [*row["options"][:-1], " "]


def _no_option(row: Row) -> None:
    row["options"] = []


#: What is done to one item -> the field that is to be named, and words of the problem.
BAD: dict[str, tuple[Callable[[Row], None], str, str]] = {
    "hidden": (_set(answer=-1), "doc_to_target (answer)", "a number below 0"),
    "beyond": (_set(answer=3), "doc_to_target (answer)", "the number of an option that is not there"),
    "nothing": (_set(story=None), "story", "is nothing (null)"),
    "blank": (_blank, "doc_to_choice (options)", "gives an empty option"),
    "none": (_no_option, "doc_to_choice (options)", "gives no options"),
}


@pytest.mark.parametrize("kind", BAD)
def test_one_bad_item_is_found_with_its_task_split_item_and_field(kind: str, tmp_path: Path) -> None:
    spoil, field, words = BAD[kind]
    draw = random.Random(kind)
    split, place = draw.choice(["train", "test"]), draw.randrange(1, ITEMS)
    splits = {"train": rows("train"), "test": rows("test")}
    assert found(define(tmp_path / "clean", CHOICE, splits)) == []
    spoil(splits[split][place])
    (problem,) = found(define(tmp_path / "spoilt", CHOICE, splits))
    assert (problem.task, problem.split, problem.field, problem.count, problem.of) == ("asked", split, field, 1, ITEMS)
    assert problem.items == (f"item {place} (id {split}{place})",)
    assert problem.refused
    assert words in problem.sentence


def test_a_first_item_that_lm_eval_cannot_render_is_named_like_any_other(tmp_path: Path) -> None:
    splits = {"train": rows("train"), "test": rows("test")}
    for row in (*splits["train"], *splits["test"]):
        row["answer"] += 1
    splits["test"] = splits["test"][2:]  # the answer of the first item is 3
    expected = r"asked, test: in 10 of 28 items doc_to_target \(answer\) .*item 0 \(id test2\): 3, .* numbered from 1"
    with pytest.raises(DataError, match=expected):
        define(tmp_path, CHOICE, splits).get("asked")


def test_numbers_with_a_point_name_options(tmp_path: Path) -> None:
    """As a column of numbers with a gap is read."""
    splits = {"train": rows("train"), "test": rows("test")}
    for row in (*splits["train"], *splits["test"]):
        row["answer"] = float(row["answer"])
    loader = define(tmp_path, CHOICE, splits)
    assert found(loader) == []
    task = loader.get("asked")
    assert [training_example(task, doc).answer for doc in task.training_docs()][:3] == [" ann 0", " bob 1", " eve 2"]


def test_a_template_that_fails_late_is_found(tmp_path: Path) -> None:
    splits = {"train": rows("train"), "test": rows("test")}
    for row in (*splits["train"], *splits["test"]):
        row["key"] = row["options"][row["answer"]]
    splits["test"][17]["key"] = "nobody"
    (problem,) = found(define(tmp_path, {**CHOICE, "doc_to_target": "{{options.index(key)}}"}, splits))
    assert (problem.field, problem.items) == ("doc_to_target", ("item 17 (id test17)",))
    assert "raises ValueError" in problem.problem


@pytest.mark.parametrize(
    "template", ["{% if story %}{{story}} {% endif %}{{question}}", "{{story or ''}}{{question}}", "{{question}} None"]
)
def test_nothing_that_is_not_printed_is_no_problem(template: str, tmp_path: Path) -> None:
    splits = {"train": rows("train"), "test": rows("test")}
    for index, row in enumerate((*splits["train"], *splits["test"])):
        row["question"] = f"Who came on day {index}?"
    splits["test"][5]["story"] = None
    assert found(define(tmp_path, {**CHOICE, "doc_to_text": template}, splits)) == []


def test_nothing_within_a_field_and_in_another_spelling_is_named(tmp_path: Path) -> None:
    splits = {"train": rows("train"), "test": rows("test")}
    for row in (*splits["train"], *splits["test"]):
        row["about"] = {"place": "home", "hour": "noon"}
    splits["train"][9]["about"] = {"place": None, "hour": "noon"}
    (problem,) = found(
        define(tmp_path, {**TEXT, "doc_to_text": "{{about.place|upper}} {{story}} {{question}}"}, splits)
    )
    assert (problem.field, problem.split, problem.items) == ("about.place", "train", ("item 9 (id train9)",))


def test_what_real_data_have_is_said_and_not_refused(tmp_path: Path) -> None:
    splits = {"train": rows("train"), "test": rows("test")}
    splits["test"][8] = {**splits["test"][3], "id": "again"}
    splits["test"][12]["options"] = ["ann", "ann", "bob"]
    problems = found(define(tmp_path, CHOICE, splits))
    assert not any(problem.refused for problem in problems)
    repeated, twice = problems
    assert (repeated.items, repeated.detail) == (("item 8 (id again)",), "item 3")
    assert (twice.field, twice.items) == ("doc_to_choice (options)", ("item 12 (id test12)",))
    refuse(audit(define(tmp_path, CHOICE, splits), [Use(task="asked", role="scored")]))


def test_items_that_are_trained_alike_but_scored_unlike_are_no_repetition(tmp_path: Path) -> None:
    """Two items with one question and one right answer, among other options."""
    splits = {"train": rows("train"), "test": rows("test")}
    splits["train"][4] = {**splits["train"][3], "options": ["ann 3", "joe 3", "kim 3"]}
    assert found(define(tmp_path, CHOICE, splits)) == []


@pytest.mark.parametrize(("place", "words"), [(0, "always option 0"), (1, "never the first option")])
def test_the_places_of_right_answers_tell(place: int, words: str, tmp_path: Path) -> None:
    """Of answers that are numbered from 1 and never reach the last option the data show no more."""
    splits = {"train": rows("train"), "test": rows("test", 60)}
    for index, row in enumerate(splits["test"]):
        row["answer"] = place + (index % 2 if place else 0)
    (problem,) = found(define(tmp_path, CHOICE, splits))
    assert words in problem.problem
    assert not problem.refused


def test_a_prompt_that_is_always_the_same_is_said(tmp_path: Path) -> None:
    """A column's name that is misspelt is a text to lm-eval."""
    splits = {"train": rows("train"), "test": rows("test")}
    problems = found(define(tmp_path, {**CHOICE, "doc_to_text": "qestion"}, splits))
    assert [(problem.split, problem.problem, problem.detail, problem.refused) for problem in problems] == [
        (split, "gives one and the same prompt", "'qestion'", False) for split in splits
    ]


def test_a_split_that_nobody_uses_is_noted_alone(tmp_path: Path) -> None:
    splits = {"train": rows("train"), "test": rows("test"), "validation": rows("validation")}
    for row in splits["validation"]:
        row["answer"] = -1
    (problem,) = found(define(tmp_path, {**CHOICE, "validation_split": "validation"}, splits))
    assert (problem.split, problem.count, problem.refused) == ("validation", ITEMS, False)
    assert "hidden labels" in problem.problem


def test_the_column_that_a_split_goes_by_is_looked_for(tmp_path: Path) -> None:
    splits = {"train": rows("train"), "test": rows("test")}
    loader = define(tmp_path, {**CHOICE, "metadata": {"group": "tale"}}, splits)
    with pytest.raises(DataError, match="groups its items by 'tale'"):
        audit(loader, [Use(task="asked", role="trained")])


def test_what_a_tokenizer_makes_of_answers(tmp_path: Path) -> None:
    words = Vocabulary("tiny", tokenizer(), 100)
    splits = {"train": rows("train"), "test": rows("test")}
    splits["test"][7]["story"] = "It is a long day. " * 9
    problems = found(define(tmp_path, CHOICE, splits), vocabularies=[words])
    assert [(problem.items, problem.refused) for problem in problems if "more tokens" in problem.problem] == [
        (("item 7 (id test7)",), False)
    ]


def test_only_what_a_study_uses_is_looked_at(tmp_path: Path) -> None:
    splits = {"train": rows("train"), "test": rows("test")}
    splits["test"][11]["answer"] = -1
    loader = define(tmp_path, CHOICE, splits)
    for seed in range(6):
        use = Use(task="asked", role="scored", items=10, seed=seed)
        (checked,) = audit(loader, [use])
        drawn = 11 in sorted(random.Random(f"{seed}-asked").sample(range(ITEMS), 10))
        assert (checked.items, bool(checked.refused)) == (10, drawn)


def test_the_uses_of_trials() -> None:
    study = make_study(
        in_domain=("a", "b"), out_of_domain=("c",), train=TrainSpec(steps=1, task_items=9, max_length=64),
        evaluate=EvaluateSpec(limit=5, text="t"), general=GeneralSweep(task="g", items=(0, 3, 7)),
    )  # fmt: skip
    recipes = [Recipe(name="base", title="Base", method="base"), Recipe(name="full", title="Full", method="full")]
    uses = {(use.task, use.role): use for use in uses_of(make_trials(study, recipes))}
    assert {key for key in uses if key[1] == "trained"} == {("a", "trained"), ("b", "trained"), ("g", "trained")}
    assert {key[0] for key in uses if key[1] == "scored"} == {"a", "b", "c", "t"}
    assert ("t", "shown") not in uses
    assert uses["t", "scored"].items == 5
    assert (uses["a", "trained"].items, uses["a", "trained"].window, uses["g", "trained"].items) == (9, 64, 7)
    assert uses["c", "scored"].items == 5
    amounts = study.model_copy(update={"task_items": (30, 2), "train": TrainSpec(steps=1)})
    assert {use.task: use.items for use in uses_of(make_trials(amounts, recipes)) if use.role == "trained"} == {
        "a": 30, "b": 30, "g": 7,
    }  # fmt: skip
    uneven = study.model_copy(update={"train": TrainSpec(steps=1, task_items={"b": 4})})
    assert {use.task: use.items for use in uses_of(make_trials(uneven, recipes)) if use.role == "trained"} == {
        "a": None, "b": 4, "g": 7,
    }  # fmt: skip
    frozen = uses_of(make_trials(study, recipes[:1]))
    assert {use.role for use in frozen} == {"scored", "shown"}


def test_of_a_search_held_out_items_are_looked_at_as_scored_ones_and_no_test_item_is(tmp_path: Path) -> None:
    """A training item that is scored has its options looked at, which training does not read."""
    study = make_study(
        in_domain=("asked",), out_of_domain=(), evaluate=EvaluateSpec(split="validation"), frozen_base=False,
        train=TrainSpec(steps=1, validation_fraction=0.2, validation_items=None),
    )  # fmt: skip
    (trial, *_) = make_trials(study, [Recipe(name="full", title="Full", method="full")])
    uses = uses_of([trial])
    assert [use.role for use in uses] == ["trained", "held_out", "shown"]
    splits = {"train": rows("train"), "test": rows("test")}
    for row in splits["test"][1:]:
        row["answer"] = 9
    loader = define(tmp_path, CHOICE, splits)
    clean = {checked.role: checked for checked in audit(loader, uses)}
    assert not any(checked.refused for checked in clean.values()), "but of the test items"
    assert (clean["trained"].items, clean["held_out"].items) == (30, 6)
    assert clean["held_out"].split == "train (held out)"
    held = held_out(loader.get("asked"), None, fraction=0.2, seed=0)
    splits["train"][held[3]]["options"] = ["ann 0", "ann 0", "eve 0"]
    found = {checked.role: checked for checked in audit(define(tmp_path, CHOICE, splits), uses)}
    assert [problem.items for problem in found["held_out"].notes] == [(f"item {held[3]} (id train{held[3]})",)]


def test_what_was_found_is_kept_until_something_changes(tmp_path: Path) -> None:
    splits = {"train": rows("train"), "test": rows("test")}
    cache = AuditCache(folder=tmp_path / "cache")
    looked: list[str] = []

    def look() -> list[Checked]:
        loader = define(tmp_path / "tasks", CHOICE, splits)
        looked.clear()
        return audit(
            loader, whole(loader.get("asked")), known=cache.known, keep=cache.keep,
            watch=lambda task, split, done, total: looked.append(split),
        )  # fmt: skip

    first = look()
    assert set(looked) == {"train", "test"}
    assert (look(), looked) == (first, [])
    splits["test"][4]["answer"] = 7
    changed = look()
    assert set(looked) == {"train", "test"}
    assert [bool(checked.refused) for checked in changed] == [False, True]
    assert look() == changed


def test_a_cache_that_cannot_be_written_is_told_of_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    cache = AuditCache(said.append, tmp_path / "file" / "checks")
    checked = Checked(task="a", split="test", role="scored", items=1, digest="")
    for _ in range(2):
        cache.keep("key", checked)
        assert cache.known("key") is None
    assert len(said) == 1
    assert "cannot be written" in said[0]
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "key.json").write_text("{broken")
    assert AuditCache(folder=tmp_path / "checks").known("key") is None


def test_the_refusal_names_all_and_says_what_to_do(tmp_path: Path) -> None:
    splits = {"train": rows("train"), "test": rows("test")}
    splits["train"][2]["answer"] = splits["test"][2]["answer"] = -1
    loader = define(tmp_path, CHOICE, splits)
    checked = audit(loader, whole(loader.get("asked")))
    with pytest.raises(DataError) as refused:
        refuse(checked)
    text = str(refused.value)
    assert "asked, train: in 1 of 30 items" in text
    assert "asked, test: in 1 of 30 items" in text
    assert "nothing was started" in text
    assert "tasks check asked" in text


def test_the_embedded_tasks_can_be_used() -> None:
    loader = TaskLoader([REPOSITORY / "tasks" / "embedded"])
    uses = [use for name in loader.files.paths for use in whole(loader.get(name))]
    assert [problem.sentence for checked in audit(loader, uses) for problem in checked.refused] == []


def test_our_other_tasks_can_be_used(miniature: Path) -> None:
    loader = TaskLoader([REPOSITORY / "tasks"], miniature)
    names = [name for name in loader.files.paths if not name.startswith("emb_") and name != "openorca"]
    uses = [use for name in names for use in whole(loader.get(name))]
    assert [problem.sentence for checked in audit(loader, uses) for problem in checked.refused] == []
