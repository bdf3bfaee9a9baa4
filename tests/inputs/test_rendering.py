"""An item is trained on as it is scored, whatever its definition uses; what cannot be is refused with its reason."""

from __future__ import annotations

import json
import pickle
import random
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from mosld_bench.inputs.encoding import encode_answers, encode_pairs, encode_prompt
from mosld_bench.inputs.items import encode
from mosld_bench.inputs.rendering import BadItemError, own_text, requests, training_example
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.spec.trial import TrainSpec
from tests.support.models import tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

THINGS = ("plum", "saw", "crow", "ham", "kite", "drum")
ROWS = [
    {
        "q": f"what is thing {i}?", "topic": ("fruit", "tool", "bird")[i % 3], "lead": "it is",
        "options": [THINGS[(i + step) % 6] for step in range(3)], "label": i % 3, "right": THINGS[(i + i % 3) % 6],
        "both": [i % 3, (i + 1) % 3], "names": [THINGS[i % 6], f"the {THINGS[i % 6]}"],
        "begins": [f"{i} is a {THINGS[(i + step) % 6]}" for step in range(3)], "end": "and no more.",
    }
    for i in range(6)
]  # fmt: skip
_CHOICE = {"output_type": "multiple_choice", "doc_to_text": "q: {{q}}", "doc_to_choice": "options"}
_ACC = {"metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}
_WRITTEN = {
    "output_type": "generate_until", "doc_to_text": "q: {{q}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip
#: How a task asks, and what of its requests is the right answer: a place, or the texts that a metric compares with.
KINDS: dict[str, dict[str, Any]] = {
    "options": {**_CHOICE, **_ACC, "doc_to_target": "label"},
    "options by text": {**_CHOICE, **_ACC, "doc_to_target": "right"},
    "options by template": {**_CHOICE, **_ACC, "doc_to_target": "{{label}}"},
    "several right": {**_CHOICE, **_ACC, "doc_to_target": "both"},
    "options are prompts": {
        **_CHOICE, **_ACC, "doc_to_text": "label", "doc_to_choice": "begins", "doc_to_target": "end",
    },
    "one continuation": {
        **_ACC, "output_type": "loglikelihood", "doc_to_text": "q: {{q}}", "doc_to_target": " {{right}}",
    },
    "whole text": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{q}} {{right}}",
        "metric_list": [{"metric": "word_perplexity"}],
    },
    "written": {**_WRITTEN, "doc_to_target": "right"},
    "written by choice": {**_WRITTEN, "doc_to_target": "label", "doc_to_choice": "options"},
    "several to write": {**_WRITTEN, "doc_to_target": "{{names}}"},
}  # fmt: skip
#: What a definition may have besides.
EXTRAS: list[dict[str, Any]] = [
    {},
    {"gen_prefix": "it is", "description": "About the {{topic}}.\n\n", "target_delimiter": "\n"},
    {"gen_prefix": "lead", "description": "topic", "target_delimiter": ""},
    {"gen_prefix": "{{topic}}: ", "description": "A question.", "target_delimiter": " "},
]


def _load(folder: Path, rows: list[dict[str, Any]], **definition: Any) -> Any:
    """The task ``t`` over ``rows``, which are its splits of training and of test."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"train": "rows.jsonl", "test": "rows.jsonl"}
    whole = {"task": "t", "dataset_path": "json", "dataset_kwargs": {"data_files": files}, "training_split": "train",
             "test_split": "test"} | definition  # fmt: skip
    (folder / "t.yaml").write_text(yaml.safe_dump(whole))
    return TaskLoader([folder]).get("t")


@pytest.mark.parametrize(("kind", "shots"), [case for case in product(KINDS, (0, 2)) if case != ("several right", 2)])
def test_the_tokens_that_are_trained_are_those_that_are_scored(kind: str, shots: int, tmp_path: Path) -> None:
    """Against the requests that lm-eval builds when it scores the same rows."""
    words = tokenizer()
    for number, extras in enumerate(EXTRAS[1::2] if shots else EXTRAS):
        few = {"num_fewshot": shots, "fewshot_split": "train"} if shots else {}
        task = _load(tmp_path / str(number), ROWS, **KINDS[kind], **few, **extras)
        trained = encode(task, words, TrainSpec(steps=1, max_length=2000), None)
        task.build_all_requests()
        for index, (doc, item) in enumerate(zip(task.training_docs(), trained, strict=True)):
            asked = [one for one in task.instances if one.doc_id == index]
            begin = item.ids[: -item.answer]
            if task.OUTPUT_TYPE == "generate_until":
                assert begin == encode_prompt(words, asked[0].args[0])
                answer = f"{task.config.target_delimiter}{doc['names'][0] if 'several' in kind else doc['right']}"
                assert item.ids[-item.answer :] == [*words(answer)["input_ids"], words.eos_token_id]
            else:
                right = doc["label"] if task.OUTPUT_TYPE == "multiple_choice" else 0
                text = asked[right].args if len(asked[right].args) == 2 else ("", asked[right].args[0])
                (scored,) = encode_pairs(words, [text])
                assert (begin, item.ids[-item.answer :]) == scored
            pairs = requests(task, doc)
            assert [pair[0] for pair in pairs] == [one.args[0] if len(one.args) == 2 else "" for one in asked]


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "several right"])
def test_what_stands_before_an_items_own_text_is_told(kind: str, shots: int, tmp_path: Path) -> None:
    """The description and solved examples; nothing of a text that is scored whole, which has no prompt."""
    for number, extras in enumerate(EXTRAS):
        few = {"num_fewshot": shots, "fewshot_split": "train"} if shots else {}
        task = _load(tmp_path / str(number), ROWS, **KINDS[kind], **few, **extras)
        descriptions = ["", "About the {topic}.\n\n", "{topic}", "A question."]
        for doc in task.training_docs():
            example = training_example(task, doc)
            before, own = example.context[: example.shared], example.context[example.shared :]
            if kind == "whole text":
                assert (example.context, example.shared) == ("", 0)
                continue
            assert own.startswith(doc["begins"][doc["label"]] if kind == "options are prompts" else f"q: {doc['q']}")
            assert before.startswith(descriptions[number].format(**doc))
            assert (
                len(before) > len(descriptions[number].format(**doc))
                if shots
                else (before == descriptions[number].format(**doc))
            )


def test_what_a_definition_adds_is_in_the_text_and_not_in_what_is_compared(tmp_path: Path) -> None:
    extras = {
        "gen_prefix": "it is",
        "description": "About the {{topic}}.\n",
        "num_fewshot": 1,
        "fewshot_split": "train",
    }
    task = _load(tmp_path, ROWS, **KINDS["options"], **extras)
    doc = task.training_docs()[1]
    example = training_example(task, doc)
    assert example.context.startswith("About the tool.\nq: what is thing ")
    assert example.context.endswith("\n\nq: what is thing 1? it is")
    assert example.answer == " crow"
    assert own_text(task, doc) == "q: what is thing 1? it is crow"
    assert requests(task, doc)[1] == (example.context, example.answer)


def test_solved_examples_depend_on_their_item_alone_and_never_show_it(tmp_path: Path) -> None:
    """Not on the order, on the process, on what was rendered before, or on a global generator."""
    for number, split in enumerate(({"fewshot_split": "train"}, {"fewshot_split": "test"}, {})):
        task = _load(tmp_path / str(number), ROWS, **KINDS["options"], num_fewshot=5, **split)
        docs = list(task.training_docs())
        random.seed(3)
        before = random.getstate()
        prompts = [training_example(task, doc).context for doc in docs]
        assert random.getstate() == before
        assert [training_example(task, doc).context for doc in reversed(docs)] == prompts[::-1]
        for doc, prompt in zip(docs, prompts, strict=True):
            assert prompt.count(doc["q"]) == 1, "five of six examples: all but its own"
        again = _load(tmp_path / str(number), ROWS, **KINDS["options"], num_fewshot=5, **split)
        assert [training_example(again, doc).context for doc in docs] == prompts
    task = _load(tmp_path / "first", ROWS, **KINDS["options"], num_fewshot=2, fewshot_split="train",
                 fewshot_config={"sampler": "first_n"})  # fmt: skip
    shown = [[f"thing {i}" in training_example(task, doc).context for i in range(6)] for doc in docs]
    assert shown[0] == [True, True, True, False, False, False]
    assert shown[5] == [True, True, False, False, False, True]
    task = _load(tmp_path / "many", ROWS, **KINDS["options"], num_fewshot=6, fewshot_split="train")
    with pytest.raises(BadItemError, match="num_fewshot raises ValueError"):
        training_example(task, docs[0])
    task = _load(tmp_path / "several", ROWS, **KINDS["several right"], num_fewshot=2, fewshot_split="train")
    with pytest.raises(BadItemError, match="num_fewshot raises AssertionError"):  # which lm-eval cannot show solved
        training_example(task, docs[0])


_DIGITS = ["3", "2", "1", "0"]
_BAD: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    ("options", {"label": -1}, {}, "doc_to_target", "number below 0, as hidden labels are written (-1)"),
    ("options", {"label": 3}, {}, "doc_to_target", "not there (3, where the 3 options have the numbers 0 to 2)"),
    ("options", {"label": None}, {}, "doc_to_target", "neither the number nor the text of an option (None)"),
    ("options", {"label": 1.5}, {}, "doc_to_target", "neither the number nor the text"),
    ("options", {"options": ["plum", " "]}, {}, "doc_to_choice", "an empty option"),
    ("options", {"options": []}, {}, "doc_to_choice", "no options"),
    ("options by text", {"right": "stone"}, {}, "doc_to_target", "no option ('stone' of ["),
    ("several right", {"both": []}, {}, "doc_to_target", "no right option (an empty list)"),
    ("several right", {"both": [0, 3]}, {}, "doc_to_target", "not there"),
    ("options are prompts", {"label": 7}, {}, "doc_to_text", "not there"),
    ("options are prompts", {"end": ""}, {}, "doc_to_target", "no text"),
    ("options", {"q": "1200"}, {"doc_to_text": "{{q}}"}, "doc_to_text", "all digits, which lm-eval takes for"),
    ("one continuation", {"right": ""}, {}, "doc_to_target", "an empty text"),
    ("one continuation", {"right": "[1, 2]"}, {"doc_to_target": "{{right}}"}, "doc_to_target", "reads as a list"),
    ("written", {"right": ""}, {}, "doc_to_target", "an empty text"),
    ("written", {"right": None}, {}, "doc_to_target", "no text (None)"),
    ("written", {"right": "[3]"}, {"doc_to_target": "{{right}}"}, "doc_to_target", "reads as a list; name the column"),
    ("written", {"right": "['a']"}, {"doc_to_target": "{{right}}"}, "doc_to_target", "reads as a list"),
    ("several to write", {"names": []}, {}, "doc_to_target", "no answer (an empty list)"),
    ("options by template", {"right": "0", "options": _DIGITS}, {"doc_to_target": "{{right}}"}, "doc_to_target",
     "a text of digits, which lm-eval reads as the number of an option"),
    ("written by choice", {"right": "0", "options": _DIGITS}, {"doc_to_target": "{{right}}"}, "doc_to_target",
     "a text of digits, which lm-eval reads as the number of an option"),
    ("options", {}, {"doc_to_text": "{{nothing}}"}, "doc_to_text", "raises UndefinedError ('nothing' is undefined)"),
    ("options", {}, {"description": "{{nothing}}"}, "description", "raises UndefinedError"),
    ("options", {}, {"gen_prefix": "{{nothing}}"}, "gen_prefix", "raises UndefinedError"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "definition", "field", "reason"), _BAD)
def test_an_item_that_cannot_be_used_is_refused_with_field_and_reason(
    kind: str, change: dict[str, Any], definition: dict[str, Any], field: str, reason: str, tmp_path: Path
) -> None:
    task = _load(tmp_path, ROWS, **KINDS[kind])
    for key, value in definition.items():  # the first item decides of what kind a task is, and it is a good one
        task.set_config(key, value)
    for render in (training_example, requests, own_text):
        if render is own_text and field in ("gen_prefix",):
            continue
        with pytest.raises(BadItemError) as caught:
            render(task, ROWS[0] | change)
        assert caught.value.field == field
        assert reason in str(caught.value)
        assert str(caught.value).startswith("An item of the task 't' cannot be used: ")
        copied = pickle.loads(pickle.dumps(caught.value))
        assert (str(copied), copied.problem) == (str(caught.value), caught.value.problem)
    problems = {"problem": caught.value.problem, "detail": caught.value.detail}
    assert problems["detail"] not in problems["problem"] or not problems["detail"], "the same words for all items"


def test_a_column_is_taken_as_it_is(tmp_path: Path) -> None:
    """Digits and brackets are read again in templates only, which is what the refusal advises."""
    rows = [{**row, "right": "[1, 2]" if i else "[]"} for i, row in enumerate(ROWS)]
    written = _load(tmp_path / "written", rows, **KINDS["written"])
    assert [training_example(written, doc).answer for doc in written.training_docs()] == [" []", *[" [1, 2]"] * 5]
    rows = [{**row, "options": _DIGITS, "right": str(i % 4)} for i, row in enumerate(ROWS)]
    chosen = _load(tmp_path / "chosen", rows, **KINDS["options by text"])
    assert [training_example(chosen, doc).answer for doc in chosen.training_docs()] == [
        " 0",
        " 1",
        " 2",
        " 3",
        " 0",
        " 1",
    ]


def test_numbers_that_are_meant_as_numbers(tmp_path: Path) -> None:
    """Labels in a column of texts, expressions, labels beside options of digits, lists that the definition writes."""
    rows = [{**row, "label": str(row["label"])} for row in ROWS]
    task = _load(tmp_path / "texts", rows, **KINDS["options by template"])
    assert [training_example(task, doc).answer[1:] for doc in task.training_docs()] == [row["right"] for row in ROWS]
    rows = [{**row, "options": ["2", "1", "0"]} for row in ROWS]
    task = _load(tmp_path / "digits", rows, **KINDS["options by template"])
    assert training_example(task, task.training_docs()[0]).answer == " 2"
    definition = KINDS["options"] | {"doc_to_target": "{{options.index(right)}}"}
    task = _load(
        tmp_path / "expression", [{**row, "right": "0", "options": ["2", "1", "0"]} for row in ROWS], **definition
    )
    assert training_example(task, task.training_docs()[0]).answer == " 0"
    task = _load(
        tmp_path / "list", ROWS, **KINDS["several to write"] | {"doc_to_target": '["{{right}}", "a {{right}}"]'}
    )
    assert training_example(task, task.training_docs()[0]).answer == " plum"


def test_answers_end_although_the_tokenizer_has_no_token_for_it(tmp_path: Path) -> None:
    words = tokenizer()
    words.eos_token = words.bos_token = None
    task = _load(tmp_path, ROWS, **KINDS["written"])
    for item in encode(task, words, TrainSpec(steps=1, max_length=2000), None):
        assert words.decode(item.ids[-1:]) == "\n"
    pairs = [(example.context, example.answer) for example in map(training_example, [task] * 6, task.training_docs())]
    assert len(encode_answers(words, pairs)) == 6
