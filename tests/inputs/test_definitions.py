"""The definitions in tasks/: what they say of themselves, what they ask, and that they are scored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.errors import DataError
from mosld_bench.inputs.items import examples, passages, split, training_docs
from mosld_bench.inputs.tasks import TaskLoader, primary_metric
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import Domain
from mosld_bench.trial.packed_lm import PackedLM
from mosld_bench.trial.scoring import evaluate
from tests.conftest import REPOSITORY, bench
from tests.support.miniature import ITEMS

FOLDER = REPOSITORY / "tasks"
FILES = TaskFiles.scan((FOLDER,))
REAL = sorted(name for name in FILES.paths if "/" in str((FILES.config(name) or {}).get("dataset_path")))
OPTIONS = ("openbookqa", "commonsense_qa", "race", "mctest", "arc_easy", "arc_challenge", "mmlu")
KINDS = {
    "commonsense QA", "reading comprehension", "subject knowledge", "arithmetic reasoning", "sentiment",
    "summarisation", "general instructions", "held-out text",
}  # fmt: skip


def config(name: str) -> dict[str, Any]:
    """The definition of a task, its includes resolved."""
    definition = FILES.config(name)
    assert definition is not None
    return definition


@pytest.fixture(scope="module")
def loader(miniature: Path) -> TaskLoader:
    return TaskLoader([FOLDER], miniature)


@pytest.fixture(scope="module")
def lm() -> PackedLM:
    return PackedLM(AutoModelForCausalLM.from_pretrained(MODEL_DIR), AutoTokenizer.from_pretrained(MODEL_DIR))


def test_there_is_a_variant_by_letter_of_every_task_with_options() -> None:
    others = {"gsm8k", "sst2", "dialogsum", "dialogsum_text", "openorca"}
    assert set(REAL) == {*OPTIONS, *(f"{name}_letters" for name in OPTIONS), *others}
    for name in OPTIONS:
        text, letter = config(name)["metadata"], config(f"{name}_letters")["metadata"]
        assert (text["scoring"], letter["scoring"]) == ("text", "letter")
        for key in ("title", "kind", "benchmark"):
            assert text[key] == letter[key], name
        assert {k: v for k, v in text["size"].items() if k != "tokens"} == {
            k: v for k, v in letter["size"].items() if k != "tokens"
        }


@pytest.mark.parametrize("name", REAL)
def test_a_task_says_what_it_is(name: str) -> None:
    metadata = config(name)["metadata"]
    assert set(metadata) - {"scoring", "group", "scale"} == {"version", "kind", "title", "benchmark", "size"}
    assert metadata["kind"] in KINDS
    assert metadata["benchmark"] == name.removesuffix("_letters")
    assert ("scoring" in metadata) == (config(name)["output_type"] == "multiple_choice")
    passages = {"passage", "items_a_passage"} if "group" in metadata else set()
    assert set(metadata["size"]) == {"train", "test", "tokens"} | passages
    assert all(isinstance(metadata["size"][key], int) for key in ("train", "test", "tokens"))
    assert metadata["size"]["tokens"] > 0
    assert (metadata["size"]["train"] > 0) == ("training_split" in config(name))


def test_no_story_is_on_both_sides_of_a_split(mirror: Path) -> None:
    """MCTest: four questions on each of 370 stories."""
    task = TaskLoader([FOLDER], mirror).get("mctest")
    stories = passages(task)
    assert stories is not None
    assert len(set(stories)) == len(stories) / 4 == 370
    train, held = split(len(stories), "mctest", fraction=0.1, seed=0, groups=stories)
    assert len(held) == 148
    assert {stories[i] for i in train}.isdisjoint(stories[i] for i in held)


@pytest.mark.parametrize("name", REAL)
def test_data_are_pinned_or_it_is_said_why_not(name: str) -> None:
    revision = config(name).get("dataset_kwargs", {}).get("revision")
    if revision is None:
        base = FILES.paths[name.removesuffix("_letters")].read_text()
        assert re.search(r"^# No revision: ", base, re.M), name
    else:
        assert re.fullmatch(r"[0-9a-f]{40}", revision)


GOLDEN = {
    "openbookqa": ("Question: Where does Ben put the cup on day 1?\nAnswer:", " boat"),
    "commonsense_qa": ("Question: Where does Ben put the cup on day 1?\nAnswer:", " boat"),
    "arc_easy": ("Question: Where does Ben put the cup on day 1?\nAnswer:", " boat"),
    "race": (
        "Ben has a cup since day 1. Ben puts the cup in the boat.\n"
        "Question: Where does Ben put the cup on day 1?\nAnswer:",
        " boat",
    ),
    "gsm8k": (
        "Question: Ben has 3 cups and gets 1000 more. How many cups does Ben have?\nAnswer:",
        " Ben has 3 cups.\nThen there are 3+1000=<<3+1000=1003>>1003 cups.\n#### 1,003",
    ),
    "sst2": ("Review: a good film about a cup\nSentiment:", " positive"),
    "dialogsum": (
        "Dialogue:\n#Person1#: Where is my cup?\n#Person2#: It is in the boat.\nSummary:",
        " #Person2# tells #Person1# where the cup is.",
    ),
    "dialogsum_text": ("", "#Person1#: Where is my kite?\n#Person2#: It is in the box."),
    "openorca": (
        "Instruction: Ben has a cup since day 1.\nBen puts the cup in the boat. "
        "Where does Ben put the cup on day 1?\nResponse:",
        " In the boat.",
    ),
}  # fmt: skip
LINES = "A. garden\nB. kitchen\nC. school\nD. boat\nAnswer:"
GOLDEN |= {
    "arc_challenge": GOLDEN["arc_easy"],
    "mctest": GOLDEN["race"],
    "commonsense_qa_letters": (
        "Question: Where does Ben put the cup on day 1?\n" + LINES.replace("Answer:", "E. barn\nAnswer:"),
        " D",
    ),
    **{
        f"{name}_letters": (GOLDEN[name][0].removesuffix("Answer:") + LINES, " D")
        for name in ("openbookqa", "arc_easy", "race")
    },
}
GOLDEN |= {
    "mmlu": ("Question: Where does Ben put the kite on day 13?\nAnswer:", "box"),
    "mmlu_letters": (
        "Question: Where does Ben put the kite on day 13?\nA. shop\nB. box\nC. garden\nD. kitchen\nAnswer:",
        "B",
    ),
}
GOLDEN |= {"arc_challenge_letters": GOLDEN["arc_easy_letters"], "mctest_letters": GOLDEN["race_letters"]}


@pytest.mark.parametrize("name", REAL)
def test_prompt_and_answer(name: str, loader: TaskLoader) -> None:
    task = loader.get(name)
    assert len(task.eval_docs) == (24 if name.startswith("mctest") else ITEMS)
    if "training_split" not in config(name):
        with pytest.raises(DataError, match="has no training split"):
            examples(task)
        doc = task.eval_docs[1]
        target = task.doc_to_target(doc)
        right = task.doc_to_choice(doc)[target] if isinstance(target, int) else target
        assert (task.doc_to_text(doc), right) == GOLDEN[name]
        return
    (example,) = examples(task, [1])
    assert (example.context, example.answer) == GOLDEN[name]
    assert examples(task)[1] == example


@pytest.mark.parametrize("name", ["arc_easy_letters", "arc_challenge_letters"])
def test_letters_go_by_position(name: str, loader: TaskLoader) -> None:
    """Whatever the options are called, and however many there are."""
    task = loader.get(name)
    for index, letters in ((3, "ABC"), (5, "ABCDE"), (7, "ABCD")):
        doc = training_docs(task)[index]
        assert task.doc_to_choice(doc) == list(letters)
        (example,) = examples(task, [index])
        right = doc["choices"]["text"][doc["choices"]["label"].index(doc["answerKey"])]
        assert f"\n{example.answer.strip()}. {right}\n" in example.context
        assert re.findall(r"^([A-Z])\. ", example.context, re.M) == list(letters)


def test_what_must_not_stop_a_generated_answer_is_not_in_it(loader: TaskLoader) -> None:
    for name in ("gsm8k", "dialogsum"):
        task = loader.get(name)
        stops = task.config.generation_kwargs["until"]
        assert not [item for item in examples(task) for stop in stops if stop in item.answer], name
    assert "\n\n" in training_docs(loader.get("gsm8k"))[2]["answer"]


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("race_letters", ["acc,none"]),
        ("sst2", ["acc,none"]),
        ("gsm8k", ["exact_match,strict-match", "exact_match,flexible-extract"]),
        ("dialogsum", ["rougeL,none", "rouge1,none", "rouge2,none"]),
    ],
)
def test_scoring(name: str, metrics: list[str], loader: TaskLoader, lm: PackedLM) -> None:
    task = short(loader.get(name))
    scores, items, _ = evaluate(lm, {name: task}, {name: Domain.IN}, limit=2, sample_seed=0)
    assert [score.metric for score in scores] == metrics
    assert [score.primary for score in scores] == [True] + [False] * (len(metrics) - 1)
    assert all(0 <= score.value <= 1 for score in scores)
    assert all(score.role is Domain.IN for score in scores)
    assert len(items) == 2


def short(task: Any) -> Any:
    """Few generated tokens: an untrained model would fill all that it may have."""
    if task.OUTPUT_TYPE == "generate_until":
        task.config.generation_kwargs["max_gen_toks"] = 16
    return task


class Knowing(PackedLM):
    """Gives the training answer to every prompt (``answers``: prompt -> answer)."""

    answers: dict[str, str]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        return [self.answers[request.args[0]] for request in requests]


@pytest.mark.parametrize("name", ["gsm8k", "dialogsum"])
def test_the_reference_is_a_perfect_answer(name: str, loader: TaskLoader, lm: PackedLM) -> None:
    task = loader.get(name)
    step = 3 if name == "dialogsum" else 1  # of a dialogue's three references, the first is given
    knowing = Knowing(lm.model, lm.tokenizer)
    docs = list(task.eval_docs)[::step]
    delimiter = task.config.target_delimiter
    knowing.answers = {task.doc_to_text(doc): delimiter + task.doc_to_target(doc) for doc in docs}
    metrics, items, _ = evaluate(knowing, {name: task}, {name: Domain.IN}, limit=None, sample_seed=0)
    assert (items.loc[items["doc"] % step == 0, "score"] == 1).all()
    values = {metric.metric: metric.value for metric in metrics}
    if name == "gsm8k":
        assert set(values.values()) == {1.0}
    else:  # the others share words with the first
        assert (items.loc[items["doc"] % step != 0, "score"] < 1).all()
        assert 0 < values["rouge2,none"] < values["rouge1,none"] < 1


def test_tasks_are_listed_and_shown(miniature: Path) -> None:
    listed = bench("tasks", "ls", COLUMNS="200")
    assert listed.returncode == 0, listed.stderr
    assert all(name in listed.stdout for name in REAL)
    shown = bench("tasks", "show", "race_letters", "--items", "1", "--data-root", str(miniature), COLUMNS="200")
    assert shown.returncode == 0, shown.stderr
    assert "D. school\nAnswer: A" in shown.stdout


#: Not the size on the hub: the mirror's training split is another copy.
MIRRORED = {"sst2": 60614}


@pytest.mark.parametrize("name", REAL)
def test_the_mirror_has_what_the_task_says(name: str, mirror: Path, lm: PackedLM) -> None:
    if not (mirror / config(name)["dataset_path"]).is_dir():
        pytest.skip(f"the mirror has no {config(name)['dataset_path']}")
    task, size = TaskLoader([FOLDER], mirror).get(name), config(name)["metadata"]["size"]
    assert len(task.eval_docs) == size["test"]
    if config(name).get("training_split") in task.dataset:
        assert len(training_docs(task)) == MIRRORED.get(name, size["train"])
        for example in examples(task, range(20)):
            assert re.search(r"(Answer|Sentiment):$", example.context)
            assert re.match(r" \S", example.answer)
    metrics, items, _ = evaluate(lm, {name: short(task)}, {name: Domain.IN}, limit=3, sample_seed=0)
    assert len(items) == 3
    assert next(metric.metric for metric in metrics if metric.primary) == primary_metric(task)
