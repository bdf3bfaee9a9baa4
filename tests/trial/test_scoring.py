"""What scoring a model on tasks leaves: their metrics, a row an item, and every random generator as it was."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.spec.trial import Domain
from mosld_bench.trial.packed_lm import PackedLM
from mosld_bench.trial.packed_scoring import Score
from mosld_bench.trial.scoring import Evaluation, evaluate
from tests.support.models import build, config, tokenizer


class Fixed(PackedLM):
    """Gives every option the log-likelihood ``value``, but the longest, which has a nat more."""

    value = -3.0

    def loglikelihood(self, requests: list[object], disable_tqdm: bool = True) -> list[Score]:
        return [(self.value + len(request.args[1]) / 10, False) for request in requests]  # type: ignore[attr-defined]


@pytest.fixture
def tasks(tiny: Path) -> dict[str, Any]:
    """An in-domain and an out-of-domain task of 20 items with three options each."""
    loader = TaskLoader([tiny / "tasks"])
    return {name: loader.get(name) for name in ("copy", "other")}


def scored(tasks: dict[str, Any], lm: PackedLM, limit: int | None = None) -> Evaluation:
    return evaluate(lm, tasks, {"copy": Domain.IN, "other": Domain.OUT}, limit=limit, sample_seed=0)


def test_metrics_and_items(tasks: dict[str, Any]) -> None:
    """The second of three options is the longest and the first is right: none is answered."""
    evaluation = scored(tasks, Fixed(build(config()), tokenizer()), limit=7)
    copy, other = evaluation.metrics
    assert (copy.task, copy.role, copy.metric, copy.items) == ("copy", Domain.IN, "acc,none", 7)
    assert (other.task, other.role, other.primary, other.higher_is_better) == ("other", Domain.OUT, True, True)
    assert copy.value == 0
    assert copy.chance == pytest.approx(1 / 3)
    items = evaluation.items
    assert list(items["task"]) == ["copy"] * 7 + ["other"] * 7
    assert set(items["prediction"]) == {"1"}
    assert not items["correct"].any()
    assert items["item"].is_unique
    assert all(len(values) == 3 for values in items["logliks"])


def test_scoring_moves_no_random_generator(tasks: dict[str, Any]) -> None:
    lm = PackedLM(build(config()), tokenizer())
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = random.random(), np.random.random(), torch.rand(())
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    scored(tasks, lm)
    assert (random.random(), np.random.random(), torch.rand(())) == expected


def test_work_is_what_the_model_computed(tasks: dict[str, Any]) -> None:
    packed = scored(tasks, PackedLM(build(config()), tokenizer())).info
    plain = scored(tasks, PackedLM(build(config()), tokenizer(), packed=False)).info
    assert packed.packed
    assert not plain.packed
    assert packed.requests == plain.requests == 2 * 20 * 3
    assert packed.tokens_plain == plain.tokens_plain == plain.tokens_computed > packed.tokens_computed


MORE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
output_type: {output}
doc_to_text: "{{{{question}}}}?"
{answers}
metric_list: {metrics}
"""
CHOICE = "doc_to_choice: options\ndoc_to_target: answer"
WORD = 'doc_to_target: " {{options[answer]}}"'
OPTIONS = ["ham", "cat and dog", "saw it"]


def kind(folder: Path, name: str, metrics: str, *, output: str = "multiple_choice", items: int = 6) -> Any:
    """A task with these metrics, of questions whose answers are the options in turn."""
    answers = CHOICE if output == "multiple_choice" else WORD
    rows = [
        {"question": f"{'melon' if i % 2 else 'lion'} {i}", "options": OPTIONS, "answer": i % 3} for i in range(items)
    ]
    text = MORE.format(name=name, output=output, answers=answers, metrics=metrics)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return TaskLoader([folder]).get(name)


def alone(task: Any, lm: PackedLM) -> Evaluation:
    return evaluate(lm, {task.config.task: task}, {task.config.task: Domain.IN}, limit=None, sample_seed=0)


def sizes(lm: PackedLM, question: str) -> list[float]:
    """The log-likelihoods of the options after a question."""
    asked = [SimpleNamespace(args=(question, f" {option}")) for option in OPTIONS]
    return [value for value, _ in lm.loglikelihood(asked)]  # type: ignore[arg-type]


PAIRED = ["mcc, aggregation: matthews_corrcoef", "f1, aggregation: f1", "brier_score, aggregation: brier_score"]


@pytest.mark.parametrize("metric", PAIRED)
def test_of_a_metric_of_the_whole_set_items_have_no_score_and_correct_is_right(metric: str, tmp_path: Path) -> None:
    lm = PackedLM(build(config()), tokenizer())
    task = kind(tmp_path, "whole", f"[{{metric: {metric}, higher_is_better: true}}]")
    items = alone(task, lm).items
    assert items["score"].isna().all()
    assert items["correct"].tolist() == (items["prediction"] == items["target"]).tolist()
    best = [max(range(3), key=sizes(lm, f"{'melon' if i % 2 else 'lion'} {i}?").__getitem__) for i in range(6)]
    assert items["prediction"].tolist() == list(map(str, best))


@pytest.mark.parametrize("metric", ["acc", "acc_norm", "acc_bytes", "acc_mutual_info"])
def test_the_prediction_is_the_option_that_the_metric_takes(metric: str, tmp_path: Path) -> None:
    lm = PackedLM(build(config()), tokenizer())
    task = kind(tmp_path, "pick", f"[{{metric: {metric}, aggregation: mean, higher_is_better: true}}]", items=12)
    evaluation = alone(task, lm)
    items = evaluation.items

    def values(question: str) -> list[float]:
        own = sizes(lm, question)
        if metric == "acc_mutual_info":
            return [value - other for value, other in zip(own, sizes(lm, ""), strict=True)]
        lengths = [1] * 3 if metric == "acc" else [len(option) for option in OPTIONS]
        return [value / length for value, length in zip(own, lengths, strict=True)]

    best = [max(range(3), key=values(f"{'melon' if i % 2 else 'lion'} {i}?").__getitem__) for i in range(12)]
    assert items["prediction"].tolist() == list(map(str, best))
    assert {len(logliks) for logliks in items["logliks"]} == {3}
    assert items["correct"].tolist() == (items["prediction"] == items["target"]).tolist()
    assert evaluation.metrics[0].value == pytest.approx(items["correct"].mean())


def test_a_perplexity_has_no_items_score(tmp_path: Path) -> None:
    """An item's value is its log-likelihood, of which more is better: not the metric's."""
    task = kind(tmp_path, "words", "[{metric: perplexity}, {metric: acc}]", output="loglikelihood")
    evaluation = alone(task, PackedLM(build(config()), tokenizer()))
    perplexity, accuracy = evaluation.metrics
    assert (perplexity.primary, perplexity.higher_is_better, accuracy.higher_is_better) == (True, False, True)
    items = evaluation.items
    assert items["score"].isna().all()
    assert items["correct"].isna().all()
    assert perplexity.value == pytest.approx(math.exp(-np.mean([logliks[0] for logliks in items["logliks"]])), rel=1e-5)
    assert perplexity.stderr is not None
    assert perplexity.stderr > 0


class Odd(PackedLM):
    """Gives ``value`` as the log-likelihood of what follows a question about a melon."""

    value = math.nan

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[Score]:
        return [
            (self.value if "melon" in request.args[0] else -3.0 - len(request.args[1]), False) for request in requests
        ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "3 of 6 log-likelihoods are no numbers"),
        (-math.inf, "it comes to inf"),
        (-1e6, "OverflowError: math range error"),
    ],
)
def test_what_is_no_number_costs_its_task_alone(
    value: float, reason: str, tasks: dict[str, Any], tmp_path: Path
) -> None:
    lm = Odd(build(config()), tokenizer())
    lm.value = value
    words = kind(tmp_path, "words", "[{metric: perplexity}]", output="loglikelihood")
    domains = {"words": Domain.IN, "copy": Domain.OUT}
    evaluation = evaluate(lm, {"words": words, "copy": tasks["copy"]}, domains, limit=None, sample_seed=0)
    (metric,) = evaluation.metrics
    assert (metric.task, metric.metric, metric.items) == ("copy", "acc,none", 20)
    (absent,) = evaluation.info.unscored
    assert (absent.task, absent.metric, absent.role, absent.primary) == ("words", "perplexity,none", Domain.IN, True)
    assert not absent.higher_is_better
    assert absent.reason == reason
    assert evaluation.items["task"].value_counts().to_dict() == {"words": 6, "copy": 20}


def test_a_model_of_which_no_task_has_a_number_is_an_error(tasks: dict[str, Any]) -> None:
    lm = Odd(build(config()), tokenizer())
    lm.loglikelihood = lambda requests, disable_tqdm=True: [(math.nan, False)] * len(requests)  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match="log-likelihoods that are no numbers"):
        scored(tasks, lm)


def test_a_request_that_is_no_number_spoils_no_other() -> None:
    """One token has an embedding that is no number: what is scored beside it, packed or not, is as without."""
    model, words = build(config()), tokenizer()
    with torch.no_grad():
        model.get_input_embeddings().weight[words("z")["input_ids"][0]] = math.nan
    pairs = [("ab", "c"), ("az", "c"), ("ab", "d"), ("abz", "d")]
    requests: list[Any] = [SimpleNamespace(args=pair) for pair in pairs]
    plain = [value for value, _ in PackedLM(build(config()), words, packed=False).loglikelihood(requests)]
    for packed in (True, False, None):
        values = [value for value, _ in PackedLM(model, words, packed=packed).loglikelihood(requests)]
        assert [math.isnan(value) for value in values] == [False, True, False, True]
        assert [values[0], values[2]] == pytest.approx([plain[0], plain[2]], abs=1e-4)


def test_a_first_metric_that_the_tasks_own_code_leaves_out_is_told(tasks: dict[str, Any]) -> None:
    task = tasks["copy"]
    own = task.process_results
    task.process_results = lambda doc, results: {"mine": own(doc, results)["acc"]}
    (metric,) = alone(task, Fixed(build(config()), tokenizer())).metrics
    assert (metric.metric, metric.primary) == ("mine,none", False)
    (absent,) = alone(task, Fixed(build(config()), tokenizer())).info.unscored
    assert (absent.metric, absent.primary) == ("acc,none", True)
    assert absent.reason == "lm-eval gives no number of that name, only mine,none"


def test_items_whose_best_options_are_equal_are_counted(tmp_path: Path) -> None:
    """By the metric's own measure: equal log-likelihoods of options of several lengths tie under acc alone."""
    lm = PackedLM(build(config()), tokenizer())
    lm.loglikelihood = lambda requests, disable_tqdm=True: [(-2.0, False)] * len(requests)  # type: ignore[method-assign]
    for metric, tied in (("acc", 6), ("acc_norm", 0)):
        (tmp_path / metric).mkdir()
        task = kind(tmp_path / metric, "t", f"[{{metric: {metric}, aggregation: mean, higher_is_better: true}}]")
        (score,) = alone(task, lm).metrics
        assert score.tied == tied


def test_scores_of_one_text_have_no_ties(tmp_path: Path) -> None:
    task = kind(tmp_path, "words", "[{metric: acc}]", output="loglikelihood")
    evaluation = alone(task, PackedLM(build(config()), tokenizer()))
    assert evaluation.metrics[0].tied is None
    assert evaluation.items["prediction"].isna().all()
