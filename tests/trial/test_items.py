"""What a trial keeps of its items: every number of its record can be made again of them."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.records.items import COLUMNS, read_items
from mosld_bench.records.parquet import parquet_bytes
from mosld_bench.spec.trial import Domain
from mosld_bench.trial.packed_lm import PackedLM
from mosld_bench.trial.packed_scoring import Score
from mosld_bench.trial.scoring import Evaluation, evaluate
from tests.conftest import REPOSITORY
from tests.support.models import build, config, tokenizer
from tests.support.recompute import one_by_one, probability, recomputed

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

THINGS = ("plum on a dish", "saw", "crow in the tree", "ham", "kite in a very old tree", "drum")
ROWS: list[dict[str, Any]] = [
    {
        "id": f"q{i}", "q": f"what is thing {i}?", "options": [THINGS[(i + 2 * step) % 6] for step in range(3)],
        "label": i * i % 3, "both": [i % 3, (i + 1) % 3], "story": f"story {i // 4} " * (1 + 20 * (i // 8)),
        "right": THINGS[i % 6], "names": [THINGS[i % 6], f"the {THINGS[i % 6]}"], "end": "and no more.",
        "sides": ["no", "yes"], "side": i % 2,
    }
    for i in range(12)
]  # fmt: skip
_CHOICE = {"output_type": "multiple_choice", "doc_to_text": "q: {{q}}", "doc_to_choice": "options"}
_BINARY = {**_CHOICE, "doc_to_choice": "sides", "doc_to_target": "side"}
_ROLLING = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{q}} {{right}}"}
_WRITTEN = {
    "output_type": "generate_until", "doc_to_text": "q: {{q}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12, "do_sample": False},
}  # fmt: skip
_FILTERS = [
    {"name": name, "filter": [{"function": "regex", "regex_pattern": pattern}, {"function": "take_first"}]}
    for name, pattern in (("strict", "^the (\\w+)$"), ("loose", "(\\w+)$"))
]
#: How a task asks, and the metrics that it reports.
KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "options": (
        {**_CHOICE, "doc_to_target": "label"},
        ["acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "mcc", "brier_score"],
    ),
    "two options": (_BINARY, ["f1", "mcc", "acc", "acc_norm"]),
    "options by text": (
        {**_CHOICE, "doc_to_target": "{{options[label]}}"},
        ["acc", "acc_norm", "mcc", "brier_score"],
    ),
    "several right": ({**_CHOICE, "doc_to_target": "both"}, ["acc", "acc_norm", "exact_match"]),
    "options are prompts": (
        {**_CHOICE, "doc_to_text": "label", "doc_to_target": "end"},
        ["acc", "acc_norm", "brier_score"],
    ),
    "one continuation": (
        {"output_type": "loglikelihood", "doc_to_text": "q: {{q}}", "doc_to_target": " {{right}}"},
        ["perplexity", "acc"],
    ),
    "whole text": (_ROLLING, ["word_perplexity", "byte_perplexity", "bits_per_byte"]),
    "written": ({**_WRITTEN, "doc_to_target": "right"}, ["exact_match", "bleu", "chrf", "ter"]),
    "written by choice": ({**_WRITTEN, "doc_to_target": "label", "doc_to_choice": "options"}, ["exact_match", "chrf"]),
    "several to write": ({**_WRITTEN, "doc_to_target": "{{names}}"}, ["exact_match"]),
    "through filters": ({**_WRITTEN, "doc_to_target": "right", "filter_list": _FILTERS}, ["exact_match"]),
}
#: Task -> its kind, and the metric that is its first and so its primary one.
ORDERS = {
    f"{kind} {first}".replace(" ", "_"): (kind, first) for kind, (_, metrics) in KINDS.items() for first in metrics
}


class MadeUp(PackedLM):
    """Log-likelihoods drawn by the request, and answers that are right in two cases of three, some with an article."""

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[Score]:
        draws = (random.Random(repr(request.args)) for request in requests)
        return [(draw.uniform(-30, -1), draw.random() < 0.4) for draw in draws]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        numbers = [int(request.args[0].split("thing ")[1].split("?")[0]) for request in requests]
        return [f"{'the ' if i % 2 else ''}{THINGS[(i + (i % 3 == 1)) % 6]}" for i in numbers]


def define(folder: Path, name: str, definition: dict[str, Any], rows: Sequence[dict[str, Any]] = ROWS) -> None:
    """Write the task of a definition, over ``rows``."""
    text = yaml.safe_dump({
        "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "test_split": "test", **definition,
    })  # fmt: skip
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def scored(tasks: dict[str, Any], lm: PackedLM, limit: int | None = None) -> Evaluation:
    return evaluate(lm, tasks, dict.fromkeys(tasks, Domain.IN), limit=limit, sample_seed=0)


def alone(folder: Path, definition: dict[str, Any], lm: PackedLM, rows: Sequence[dict[str, Any]] = ROWS) -> Evaluation:
    """The evaluation of one task."""
    define(folder, "t", definition, rows)
    return scored({"t": TaskLoader([folder]).get("t")}, lm)


def kept(evaluation: Evaluation, folder: Path) -> pd.DataFrame:
    """The items as they are read of the file that a trial leaves."""
    (folder / "items.parquet").write_bytes(parquet_bytes(evaluation.items))
    return read_items(folder / "items.parquet")


def assert_recomputed(evaluation: Evaluation, items: pd.DataFrame) -> None:
    for metric in evaluation.metrics:
        value, exactness = recomputed(items[items["task"] == metric.task], metric.metric)
        assert value == pytest.approx(metric.value, rel=exactness, abs=1e-12), (metric.task, metric.metric)


@pytest.fixture(scope="module")
def lm() -> PackedLM:
    return MadeUp(build(config(), spread=2.0), tokenizer())


@pytest.fixture(scope="module")
def evaluation(lm: PackedLM, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """One of all kinds of tasks, each as often as it has metrics, of which every one is once the primary."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, (kind, first) in ORDERS.items():
        definition, metrics = KINDS[kind]
        order = [{"metric": metric} for metric in sorted(metrics, key=lambda metric: metric != first)]
        define(folder, name, {**definition, "metric_list": order})
    loader = TaskLoader([folder])
    return scored({name: loader.get(name) for name in ORDERS}, lm)


@pytest.fixture(scope="module")
def items(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return kept(evaluation, tmp_path_factory.mktemp("items"))


def test_every_number_of_a_record_follows_from_its_items(evaluation: Evaluation, items: pd.DataFrame) -> None:
    """Whatever a task asks for, and whichever metric is its primary one."""
    assert not evaluation.info.unscored
    wanted = {(name, metric) for name, (kind, _) in ORDERS.items() for metric in KINDS[kind][1]}
    assert {(metric.task, metric.metric.partition(",")[0]) for metric in evaluation.metrics} == wanted
    assert_recomputed(evaluation, items)
    assert [metric for metric in evaluation.metrics if metric.value == 0] == []  # a zero would show little


def test_the_score_is_the_value_under_the_primary_metric(evaluation: Evaluation, items: pd.DataFrame) -> None:
    for metric in (metric for metric in evaluation.metrics if metric.primary):
        rows = items[items["task"] == metric.task]
        values = rows[metric.metric] if metric.metric in items else pd.Series(math.nan, rows.index)
        assert rows["score"].equals(values.rename("score")), metric.task


def test_a_metric_that_is_no_mean_of_items_has_no_column(items: pd.DataFrame) -> None:
    means = {"acc,none", "acc_norm,none", "acc_bytes,none", "acc_mutual_info,none", "exact_match,none",
             "exact_match,strict", "exact_match,loose"}  # fmt: skip
    assert {*items.columns} == {*COLUMNS, *means}
    for task, columns in {
        "two_options_f1": {"acc,none", "acc_norm,none"},
        "through_filters_exact_match": {"exact_match,strict", "exact_match,loose"},
        "whole_text_word_perplexity": set(),
    }.items():
        counts = items.loc[items["task"] == task, sorted(means)].count()
        assert counts.to_dict() == {name: 12 * (name in columns) for name in means}


def test_the_probability_is_that_of_the_right_options(items: pd.DataFrame) -> None:
    """To the rounding of the kept log-likelihoods; where there are no options there is none."""
    has_options = items["task"].str.contains("option|several_right")
    assert items["probability"].notna().equals(has_options)
    for row in one_by_one(items[has_options]):
        assert row.probability == pytest.approx(probability(row.target, row.logliks), rel=1e-5)
    several = items[items["task"] == "several_right_acc"]
    assert set(several["target"]) == {"[0, 1]", "[1, 2]", "[2, 0]"}


def test_the_target_names_the_options_however_the_task_does(items: pd.DataFrame) -> None:
    """By index, by text, or by the prompt that is right."""
    labels = [str(row["label"]) for row in ROWS]
    for name in ("options_acc", "options_by_text_acc", "options_are_prompts_acc"):
        assert items.loc[items["task"] == name, "target"].tolist() == labels
    written = items.loc[items["task"] == "written_by_choice_chrf", "target"]
    assert written.tolist() == [row["options"][row["label"]] for row in ROWS]


def test_the_lengths_are_the_characters_that_acc_norm_divides_by(items: pd.DataFrame) -> None:
    rows = items[items["task"] == "options_acc"]
    assert [list(lengths) for lengths in rows["option_lengths"]] == [[*map(len, row["options"])] for row in ROWS]
    normalised = [int(np.argmax(row.logliks / row.option_lengths)) for row in one_by_one(rows)]
    right = [row["label"] for row in ROWS]
    assert [float(a == b) for a, b in zip(normalised, right, strict=True)] == rows["acc_norm,none"].tolist()
    assert all(
        len(lengths) == 0 for lengths in items.loc[items["task"] == "whole_text_bits_per_byte", "option_lengths"]
    )


def test_a_text_is_kept_with_its_words_and_bytes(items: pd.DataFrame) -> None:
    texts = [f"{row['q']} {row['right']}" for row in ROWS]
    rows = items[items["task"] == "whole_text_word_perplexity"]
    assert rows["words"].tolist() == [len(text.split()) for text in texts]
    assert rows["bytes"].tolist() == [len(text.encode()) for text in texts]
    assert items.loc[~items["task"].str.startswith("whole_text"), ["words", "bytes"]].isna().all(axis=None)


def test_items_know_the_passage_that_they_are_about(lm: PackedLM, tmp_path: Path) -> None:
    """In its own words where it is short, as a digest where it is long; where the task names none there is none."""
    definition = {**KINDS["options"][0], "metric_list": [{"metric": "acc"}]}
    groups = kept(alone(tmp_path, {**definition, "metadata": {"group": "story"}}, lm), tmp_path)["group"]
    long = hashlib.sha256(ROWS[8]["story"].encode()).hexdigest()[:16]
    assert groups.tolist() == ["story 0 "] * 4 + ["story 1 "] * 4 + [long] * 4
    numbers = kept(alone(tmp_path, {**definition, "metadata": {"group": "label"}}, lm), tmp_path)["group"]
    assert numbers.tolist() == [str(row["label"]) for row in ROWS]
    for metadata in ({}, {"group": "chapter"}):
        assert kept(alone(tmp_path, {**definition, "metadata": metadata}, lm), tmp_path)["group"].isna().all()


OWN_RULES = {
    "as lm-eval": ("{'mine': np.argmax([value for value, _ in results]) == doc['label']}", True),
    "another answer": ("{'mine': np.argmin([value for value, _ in results]) == doc['label']}", False),
    "graded": ("{'mine': 1 / (1 + doc['label'])}", False),
}


@pytest.mark.parametrize("rules", OWN_RULES)
@pytest.mark.usefixtures("code_allowed")
def test_under_a_tasks_own_rules_the_right_option_is_known_where_they_agree(
    rules: str, lm: PackedLM, tmp_path: Path
) -> None:
    code, known = OWN_RULES[rules]
    (tmp_path / "rules.py").write_text(f"import numpy as np\n\n\ndef process(doc, results):\n    return {code}\n")
    text = yaml.safe_dump({**KINDS["options"][0], "metric_list": [{"metric": "mine", "aggregation": "mean"}]})
    definition = yaml.safe_load(text) | {"include": "rules.yaml"}
    (tmp_path / "rules.yaml").write_text("process_results: !function rules.process\n")
    evaluation = alone(tmp_path, definition, lm)
    items = kept(evaluation, tmp_path)
    assert_recomputed(evaluation, items)
    assert items["probability"].notna().all() == items["probability"].notna().any() == known
    assert items["mine,none"].equals(items["score"].rename("mine,none"))


class Numberless(MadeUp):
    """Of one request in five of the task ``odd`` the log-likelihood is no number."""

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[Score]:
        spoilt = (request.task_name == "odd" and index % 5 == 0 for index, request in enumerate(requests))
        scores = super().loglikelihood(requests)
        return [(math.nan, False) if is_spoilt else score for is_spoilt, score in zip(spoilt, scores, strict=True)]


def test_of_a_task_without_a_number_items_have_none(tmp_path: Path, lm: PackedLM) -> None:
    for name in ("odd", "sound"):
        define(tmp_path, name, {**KINDS["options"][0], "metric_list": [{"metric": "acc"}]})
    loader, odd = TaskLoader([tmp_path]), Numberless(lm.model, lm.tokenizer)
    tasks = {name: loader.get(name) for name in ("odd", "sound")}
    items = kept(scored(tasks, odd), tmp_path)
    assert items.groupby("task")[["score", "probability", "acc,none"]].count().to_numpy().tolist() == [
        [0] * 3,
        [12] * 3,
    ]


def test_the_embedded_tasks_with_their_model(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = REPOSITORY / "tasks" / "embedded"
    loader = TaskLoader([folder])
    names = sorted(path.stem for path in folder.glob("emb_*.yaml") if path.stem != "emb_text")  # which has no options
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR).eval()
    lm = PackedLM(model, AutoTokenizer.from_pretrained(MODEL_DIR))
    evaluation = scored({name: loader.get(name) for name in names}, lm, limit=40)
    items = kept(evaluation, tmp_path)
    assert len(evaluation.metrics) == 2 * len(names) == 24
    assert_recomputed(evaluation, items)
    for row in one_by_one(items):
        assert row.probability == pytest.approx(probability(row.target, row.logliks), rel=1e-5)


def test_the_tasks_of_the_repository(miniature: Path, lm: PackedLM, tmp_path: Path) -> None:
    """With invented items: groups of the tasks on passages, both filters of GSM8K, ROUGE of written summaries."""
    names = [path.stem for path in (REPOSITORY / "tasks").glob("*.yaml") if path.stem[0] != "_"]
    loader = TaskLoader([REPOSITORY / "tasks"], miniature)
    knowing = MadeUp(lm.model, lm.tokenizer)
    knowing.generate_until = lambda requests, disable_tqdm=True: [  # type: ignore[method-assign]
        f"Person2 says. #### {index % 9}." for index, _ in enumerate(requests)
    ]
    evaluation = scored({name: loader.get(name) for name in names if name != "openorca"}, knowing)
    items = kept(evaluation, tmp_path)
    assert_recomputed(evaluation, items)
    grouped = items.groupby("task")["group"].nunique()
    assert set(grouped.index[grouped > 0]) == {"mctest", "mctest_letters", "race", "race_letters"}
    assert {"exact_match,strict-match", "exact_match,flexible-extract", "rouge2,none"} <= {*items.columns}
