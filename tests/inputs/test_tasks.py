"""The tasks of tasks/: what they say of themselves, what they ask, and that they train and are scored."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.errors import DataError
from mosld_bench.inputs.items import examples, passages, split, training_docs
from mosld_bench.inputs.source_note import write_note
from mosld_bench.inputs.tasks import TaskLoader, primary_metric
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import Resources, TrainSpec
from mosld_bench.trial.scoring import PackedLM, evaluate
from mosld_bench.trial.session import Session, WorkerConfig
from tests.conftest import REPOSITORY, bench, write_task
from tests.support import miniature as invented

FOLDER = REPOSITORY / "tasks"
FILES = TaskFiles.scan((FOLDER,))
REAL = sorted(name for name in FILES.paths if "/" in str((FILES.config(name) or {}).get("dataset_path")))
OPTIONS = ("openbookqa", "commonsense_qa", "race", "mctest", "arc_easy", "arc_challenge", "mmlu")
KINDS = {
    "commonsense QA", "reading comprehension", "subject knowledge", "arithmetic reasoning", "sentiment",
    "summarisation", "general instructions",
}  # fmt: skip


def config(name: str) -> dict[str, Any]:
    found = FILES.config(name)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def loader(miniature: Path) -> TaskLoader:
    return TaskLoader([FOLDER], miniature)


@pytest.fixture(scope="module")
def lm() -> PackedLM:
    return PackedLM(AutoModelForCausalLM.from_pretrained(MODEL_DIR), AutoTokenizer.from_pretrained(MODEL_DIR))


def test_there_is_a_variant_by_letter_of_every_task_with_options() -> None:
    assert set(REAL) == {*OPTIONS, *(f"{name}_letters" for name in OPTIONS), "gsm8k", "sst2", "dialogsum", "openorca"}
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
    about = config(name)["metadata"]
    assert set(about) - {"scoring", "group"} == {"version", "kind", "title", "benchmark", "size"}
    assert about["kind"] in KINDS
    assert about["benchmark"] == name.removesuffix("_letters")
    assert ("scoring" in about) == (config(name)["output_type"] == "multiple_choice")
    assert set(about["size"]) == {"train", "test", "tokens"}
    assert all(isinstance(number, int) for number in about["size"].values())
    assert about["size"]["tokens"] > 0
    assert (about["size"]["train"] > 0) == ("training_split" in config(name))


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


def test_the_digest_is_over_what_changes_numbers(tmp_path: Path) -> None:
    write_task(tmp_path, "copy", [{"x": 1}])
    path = tmp_path / "copy.yaml"
    before = TaskFiles.scan((tmp_path,)).digest("copy")
    path.write_text(path.read_text().replace("Toy copy", "Another title"))
    assert TaskFiles.scan((tmp_path,)).digest("copy") == before
    path.write_text(path.read_text().replace("}}?", "}}!"))
    assert TaskFiles.scan((tmp_path,)).digest("copy") != before


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
    assert len(task.eval_docs) == (24 if name.startswith("mctest") else invented.ITEMS)
    if "training_split" not in config(name):
        with pytest.raises(DataError, match="has no training split"):
            examples(task)
        doc = task.eval_docs[1]
        right = task.doc_to_choice(doc)[task.doc_to_target(doc)]
        assert (task.doc_to_text(doc), right) == GOLDEN[name]
        return
    (found,) = examples(task, [1])
    assert (found.context, found.answer) == GOLDEN[name]
    assert examples(task)[1] == found


@pytest.mark.parametrize("name", ["arc_easy_letters", "arc_challenge_letters"])
def test_letters_go_by_position(name: str, loader: TaskLoader) -> None:
    """Whatever the options are called, and however many there are."""
    task = loader.get(name)
    for index, letters in ((3, "ABC"), (5, "ABCDE"), (7, "ABCD")):
        doc = training_docs(task)[index]
        assert task.doc_to_choice(doc) == list(letters)
        (found,) = examples(task, [index])
        right = doc["choices"]["text"][doc["choices"]["label"].index(doc["answerKey"])]
        assert f"\n{found.answer.strip()}. {right}\n" in found.context
        assert re.findall(r"^([A-Z])\. ", found.context, re.M) == list(letters)


def test_what_must_not_stop_a_generated_answer_is_not_in_it(loader: TaskLoader) -> None:
    for name in ("gsm8k", "dialogsum"):
        task = loader.get(name)
        stops = task.config.generation_kwargs["until"]
        assert not [e for e in examples(task) for stop in stops if stop in e.answer], name
    assert "\n\n" in training_docs(loader.get("gsm8k"))[2]["answer"]


def test_generated_answers_are_trained_with_an_end_and_options_without(miniature: Path) -> None:
    session = Session(WorkerConfig((str(FOLDER),), Resources(), data_root=str(miniature)))
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    spec = TrainSpec(steps=1, max_length=256)
    for name, ends in (("gsm8k", True), ("dialogsum", True), ("openorca", True), ("race_letters", False)):
        train, held = session.examples(name, spec, tokenizer)
        assert len(train) + len(held) == invented.ITEMS
        assert all((item.ids[-1] == tokenizer.eos_token_id) == ends for item in train), name
    assert {item.answer for item in train} == {len(tokenizer(" A")["input_ids"])}


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
    found, items, _ = evaluate(lm, {name: task}, {name: "in_domain"}, limit=2, sample_seed=0)
    assert [metric.metric for metric in found] == metrics
    assert [metric.primary for metric in found] == [True] + [False] * (len(metrics) - 1)
    assert all(0 <= metric.value <= 1 for metric in found)
    assert len(items) == 2


def short(task: Any) -> Any:
    """Few generated tokens: an untrained model would fill all that it may have."""
    if task.OUTPUT_TYPE == "generate_until":
        task.config.generation_kwargs["max_gen_toks"] = 16
    return task


class Knowing(PackedLM):
    """Says the training answer to every prompt."""

    said: dict[str, str]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        return [self.said[request.args[0]] for request in requests]


@pytest.mark.parametrize("name", ["gsm8k", "dialogsum"])
def test_the_reference_is_a_perfect_answer(name: str, loader: TaskLoader, lm: PackedLM) -> None:
    task = loader.get(name)
    step = 3 if name == "dialogsum" else 1  # of a dialogue's three references, the first is said
    knowing = Knowing(lm.model, lm.tokenizer)
    docs = list(task.eval_docs)[::step]
    delimiter = task.config.target_delimiter
    knowing.said = {task.doc_to_text(doc): delimiter + task.doc_to_target(doc) for doc in docs}
    metrics, items, _ = evaluate(knowing, {name: task}, {name: "in_domain"}, limit=None, sample_seed=0)
    own = items[items["doc"] % step == 0]
    assert (own["score"] == 1).all()
    values = {metric.metric: metric.value for metric in metrics}
    if name == "gsm8k":
        assert set(values.values()) == {1.0}
    else:  # the others share words with the first
        assert (items.loc[items["doc"] % step != 0, "score"] < 1).all()
        assert 0 < values["rouge2,none"] < values["rouge1,none"] < 1


def test_a_data_set_without_its_training_split_is_scored_and_not_trained_on(miniature: Path, tmp_path: Path) -> None:
    shutil.copytree(miniature / "knkarthick", tmp_path / "knkarthick")
    folder = tmp_path / "knkarthick" / "dialogsum"
    next(folder.glob("data/train-*")).unlink()
    described = (folder / "README.md").read_text()
    (folder / "README.md").write_text(described.replace("  - split: train\n    path: data/train-*\n", ""))
    task = TaskLoader([FOLDER], tmp_path).get("dialogsum")
    assert len(task.eval_docs) == invented.ITEMS
    with pytest.raises(DataError, match="'dialogsum' has no split 'train', only validation and test, so nothing can"):
        examples(task)


def test_a_data_root_gives_its_own_rows_as_they_are_now(miniature: Path, tmp_path: Path) -> None:
    """``datasets`` alone takes folders of one name and README for the same."""
    shutil.copytree(miniature / "openai", tmp_path / "openai")
    file = next((tmp_path / "openai").rglob("train-*.parquet"))
    sizes = [len(training_docs(TaskLoader([FOLDER], miniature).get("gsm8k")))]
    for rows in (5, 4):
        pq.write_table(pq.read_table(file).slice(0, rows), file)
        sizes.append(len(training_docs(TaskLoader([FOLDER], tmp_path).get("gsm8k"))))
    assert sizes == [invented.ITEMS, 5, 4]


def test_two_definitions_of_one_task_in_a_folder_are_refused(tmp_path: Path) -> None:
    """lm-eval would run the first one it finds and say nothing."""
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first / "a.yaml", second / "a.yaml"):
        path.parent.mkdir()
        path.write_text("task: a\n")
    assert TaskFiles.scan((first, second)).paths == {"a": second / "a.yaml"}  # a later folder wins
    (first / "deep").mkdir()
    (first / "deep" / "b.yaml").write_text("task: a\n")
    with pytest.raises(DataError, match=r"a\.yaml and .*b\.yaml both define the task 'a'"):
        TaskFiles.scan((first, second))


def test_a_data_root_of_another_revision_is_refused(miniature: Path, tmp_path: Path) -> None:
    shutil.copytree(miniature / "openai", tmp_path / "openai")
    folder, pinned = tmp_path / config("gsm8k")["dataset_path"], config("gsm8k")["dataset_kwargs"]["revision"]
    write_note(folder, {"source": "hub:datasets/openai/gsm8k", "revision": pinned})
    assert len(training_docs(TaskLoader([FOLDER], tmp_path).get("gsm8k"))) == invented.ITEMS
    write_note(folder, {"source": "hub:datasets/openai/gsm8k", "revision": "main"})
    with pytest.raises(DataError, match=f"holds the revision 'main', but '{pinned}' is asked for"):
        TaskLoader([FOLDER], tmp_path).get("gsm8k")


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
        for found in examples(task, range(20)):
            assert re.search(r"(Answer|Sentiment):$", found.context)
            assert re.match(r" \S", found.answer)
    metrics, items, _ = evaluate(lm, {name: short(task)}, {name: "in_domain"}, limit=3, sample_seed=0)
    assert len(items) == 3
    assert next(metric.metric for metric in metrics if metric.primary) == primary_metric(task)
