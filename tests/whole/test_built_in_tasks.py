"""Tasks that are built into lm-eval, as a stranger uses them: by name, with data below --data-root, offline."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lm_eval import tasks
from lm_eval.evaluator import evaluate as lm_evaluate
from lm_eval.models.huggingface import HFLM

from mosld_bench.errors import DataError
from mosld_bench.inputs.rendering import training_example
from mosld_bench.inputs.tasks import TaskLoader, primary_metric
from mosld_bench.records.record import Outcome
from mosld_bench.trial.execute import execute
from mosld_bench.trial.session import Session
from tests.conftest import write_task
from tests.support.built_in import ROWS, build
from tests.support.models import build as build_model
from tests.support.models import config, tokenizer
from tests.support.recompute import recomputed
from tests.support.runs import prepare

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

#: A task -> the answer that its first item is trained on; those that lm-eval gives no training split are scored only.
TRAINED = {
    "boolq": " yes",
    "piqa": " put the ball in a bag.",
    "social_iqa": " sad",
    "winogrande": " had one too many.",
    "hellaswag": " the ball flies away.",
    "triviaqa": " ball",
    "squadv2": " unanswerable",
}
SCORED = ("lambada_openai", "gsm8k_cot", "squad_completion")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def loader(data_root: Path) -> Iterator[TaskLoader]:
    """One for all tests, for which lm-eval has these tasks alone: the index of them all takes a quarter of a minute."""
    folders = ("super_glue/boolq", "piqa", "siqa", "winogrande", "hellaswag", "lambada", "triviaqa", "gsm8k",
               "squad_completion", "squadv2")  # fmt: skip
    below = Path(tasks.__file__).parent
    few_tasks = tasks.TaskManager(include_path=[str(below / folder) for folder in folders], include_defaults=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mosld_bench.inputs.tasks._built_in_tasks", lambda: few_tasks)
        yield TaskLoader([], data_root)


def test_they_load_and_their_items_are_worded(loader: TaskLoader) -> None:
    for name, answer in TRAINED.items():
        task = loader.get(name)
        assert len(task.training_docs()) == len(task.eval_docs) == ROWS
        assert training_example(task, task.training_docs()[0]).answer == answer, name
    blank = loader.get("winogrande")
    assert training_example(blank, blank.training_docs()[0]).context == "ada gave ben a ball since ada"
    for name in SCORED:
        assert len(loader.get(name).eval_docs) == ROWS
    shown = training_example(loader.get("gsm8k_cot"), loader.get("gsm8k_cot").eval_docs[0]).context
    assert shown.count("The answer is") == 8


def test_they_are_trained_and_scored_as_lm_evals_own_model_scores_them(
    tiny: Path, data_root: Path, loader: TaskLoader
) -> None:
    """The frozen base, item by item. SQuAD 2.0's metric is on the hub alone."""
    words = tokenizer()
    model = build_model(config(layers=1, max_position_embeddings=6000), spread=2.0)
    shutil.rmtree(tiny / "model")
    model.save_pretrained(tiny / "model")
    words.save_pretrained(tiny / "model")
    trained = [name for name in TRAINED if name != "squadv2"]
    overrides: dict[str, Any] = {"in_domain": trained, "out_of_domain": list(SCORED), "recipes": ["lora"]}
    overrides |= {"budgets": ["native"], "train.max_length": 400, "train.steps": 3}
    _, planned, setup = prepare(tiny, **overrides)
    loader.get("gsm8k_cot").set_config("generation_kwargs", {"max_gen_toks": 16}, update=True)  # 256: a minute
    session = Session(replace(setup, data_root=str(data_root), save_adapter=False))
    session.tasks = loader
    outcomes: dict[str, Outcome] = {trial.recipe.name: execute(trial, session, fit) for trial, fit in planned}
    for outcome in outcomes.values():
        assert outcome.record.error is None
        assert {metric.task for metric in outcome.record.metrics if metric.primary} == {*trained, *SCORED}
    info = outcomes["lora"].record.train_info
    assert info is not None
    assert info.train_items.keys() == set(trained)

    loaded = {name: loader.get(name) for name in (*trained, *SCORED)}
    theirs = lm_evaluate(HFLM(pretrained=model, tokenizer=words, batch_size=4), {"tasks": loaded}, bootstrap_iters=0)
    base = outcomes["base"]
    assert base.items is not None
    for metric in base.record.metrics:
        value, exactness = recomputed(base.items[base.items.task == metric.task], metric.metric)
        assert value == pytest.approx(metric.value, rel=exactness, abs=1e-12), (metric.task, metric.metric)
    values = {m.task: m.value for m in base.record.metrics if m.primary}
    for name, task in loaded.items():
        primary = primary_metric(task)
        name_of_metric, _, used = primary.partition(",")
        assert values[name] == pytest.approx(theirs["results"][name][primary], rel=1e-3), name
        ours = base.items[base.items.task == name]
        samples = [entry for entry in theirs["samples"][name] if entry["filter"] == used]
        for (_, row), entry in zip(ours.iterrows(), samples, strict=True):
            assert row.doc == entry["doc_id"]
            if task.OUTPUT_TYPE == "multiple_choice":
                expected = [float(response[0]) for response in entry["filtered_resps"]]
                assert row.logliks.tolist() == pytest.approx(expected, abs=1e-2), name
                assert row.score == entry[name_of_metric]
            elif task.OUTPUT_TYPE == "generate_until":
                assert row.prediction == str(entry["filtered_resps"][0])


def test_a_data_set_by_its_old_name_without_an_organisation(data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "aps/super_glue", tmp_path / "data/super_glue")
    write_task(tmp_path / "tasks", "old", [])
    (tmp_path / "tasks/old.yaml").write_text(
        "task: old\ninclude: boolq_like.yaml\ndataset_path: super_glue\ndataset_name: boolq\n"
    )
    (tmp_path / "tasks/boolq_like.yaml").write_text(
        "output_type: multiple_choice\ntraining_split: train\nvalidation_split: validation\n"
        'doc_to_text: "{{passage}} {{question}}"\ndoc_to_choice: ["no", "yes"]\ndoc_to_target: label\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    task = TaskLoader([tmp_path / "tasks"], tmp_path / "data").get("old")
    assert len(task.eval_docs) == ROWS


def test_files_that_may_be_of_several_configurations_are_refused(tmp_path: Path) -> None:
    """As Winogrande's own archive names them: sizes of one training set, which would be read as one."""
    folder = tmp_path / "data/allenai/winogrande"
    folder.mkdir(parents=True)
    for name in ("train_s", "train_xl", "validation"):
        (folder / f"{name}.jsonl").write_text('{"q": "who?", "a": "ada"}\n')
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/sizes.yaml").write_text(
        "task: sizes\ndataset_path: allenai/winogrande\ndataset_name: winogrande_xl\noutput_type: loglikelihood\n"
        'validation_split: validation\ndoc_to_text: q\ndoc_to_target: " {{a}}"\nmetric_list: [{metric: acc}]\n'
    )
    loader = TaskLoader([tmp_path / "tasks"], tmp_path / "data")
    with pytest.raises(DataError, match="'winogrande_xl' not found"):
        loader.get("sizes")
    for name in ("train_s", "train_xl"):
        (folder / f"{name}.jsonl").unlink()
    assert len(loader.get("sizes").eval_docs) == 1
