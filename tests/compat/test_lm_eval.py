"""What compat/lm_eval.py, and scoring and loading of tasks besides it, assume of lm-eval."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.compat import lm_eval as compat
from tests.compat.assumption import assumed
from tests.conftest import items, write_task
from tests.support.models import tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of multiple choice, and one that includes it."""
    root = tmp_path_factory.mktemp("tasks")
    write_task(root, "copy", items(6, "abc"))
    text = (root / "copy.yaml").read_text().replace("copy.jsonl", str(root / "copy.jsonl"))
    (root / "copy.yaml").write_text(text)
    (root / "more.yaml").write_text("include: copy.yaml\ntask: more\n")
    return root


@pytest.fixture(scope="module")
def manager(folder: Path) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=[str(folder)], include_defaults=False)


@pytest.fixture(scope="module")
def task(manager: Any) -> Any:
    (task,) = manager.load([compat.task_config(manager, "copy")])["tasks"].values()
    return task


def test_templates_are_compiled_once() -> None:
    with assumed("lm-eval", "lm_eval.utils.env.from_string compiles the templates of all tasks and may be replaced"):
        from lm_eval import utils

        compat.sandbox_templates()
        env, apply_template = utils.env, utils.apply_template
        compat.sandbox_templates()
        assert utils.env is env
        before = env.from_string.cache_info()
        assert [apply_template("a {{word}}", {"word": word}) for word in ("b", "c")] == ["a b", "a c"]
        after = env.from_string.cache_info()
        assert (after.misses - before.misses, after.hits - before.hits) == (1, 1)


def test_requests_are_made_without_a_bar(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with assumed("lm-eval", "lm_eval.api.task.tqdm draws the bar of a task whose requests are made"):
        from lm_eval.api import task as module

        drawn: list[int] = []

        def draw(docs: Any, total: int) -> Any:
            drawn.append(total)
            return docs

        monkeypatch.setattr(module, "tqdm", draw)
        other = compat.scored_on(task, list(task.eval_docs))
        with compat.without_bars():
            other.build_all_requests(rank=0, world_size=1)
        assert len(other.instances) == 18
        assert drawn == []
        other.build_all_requests(rank=0, world_size=1)
        assert drawn == [6]


def test_a_copy_of_a_task_scores_other_documents(task: Any) -> None:
    with assumed("lm-eval", "a task's eval_docs are its test_docs() where has_test_docs(), also of a shallow copy"):
        docs = [task.training_docs()[index] for index in (4, 1)]
        other = compat.scored_on(task, docs)
        assert other.eval_docs == docs
        assert [doc for _, doc in other.doc_iterator(samples=[0, 1])] == docs
        assert len(task.eval_docs) == 6
        other.build_all_requests(rank=0, world_size=1)
        assert [request.doc for request in other.instances][::3] == docs
        assert not hasattr(task, "_instances"), "the requests are those of the copy"


def test_the_definition_of_a_task_with_its_includes(manager: Any, folder: Path) -> None:
    with assumed("lm-eval", "TaskManager.task_index[name].yaml_path is a task's file, which load_yaml reads whole"):
        assert {"copy", "more"} <= set(manager.all_subtasks)
        assert "copy" not in manager.all_groups
        definition = compat.task_config(manager, "copy")
        assert definition["dataset_kwargs"]["data_files"]["test"] == str(folder / "copy.jsonl")
        assert compat.task_config(manager, "more")["test_split"] == "test"


def test_a_task_is_what_scoring_and_training_take_it_for(task: Any) -> None:
    with assumed(
        "lm-eval", "a task has OUTPUT_TYPE, multiple_input, eval_docs, its templates applied, and its metrics in order"
    ):
        assert task.OUTPUT_TYPE == "multiple_choice"
        assert not task.multiple_input
        doc = next(iter(task.eval_docs))
        assert task.doc_to_text(doc) == "ab0?"
        assert task.doc_to_choice(doc)[task.doc_to_target(doc)] == "a"
        assert task.config.target_delimiter == " "
        assert list(task.aggregation()) == ["acc"]
        assert task.higher_is_better() == {"acc": True}


def test_what_an_item_is_asked_with(task: Any) -> None:
    with assumed("lm-eval", "fewshot_context and construct_requests make the requests that build_all_requests makes"):
        task.build_all_requests()
        doc = next(iter(task.eval_docs))
        context = task.fewshot_context(
            doc, num_fewshot=0, system_instruction=None, apply_chat_template=False, fewshot_as_multiturn=False,
            chat_template=None, gen_prefix=task.doc_to_prefix(doc),
        )  # fmt: skip
        made = task.construct_requests(
            doc=doc, ctx=context, metadata=("copy", 0, 1), apply_chat_template=False, chat_template=None
        )
        assert [one.args for one in made] == [one.args for one in task.instances if one.doc_id == 0]
        assert task.resolve_field(doc, "{{question}}") == "ab0"


def test_solved_examples_come_from_a_sampler(manager: Any, folder: Path) -> None:
    with assumed("lm-eval", "fewshot_context draws by sampler.sample(n=, eval_doc=), seeded by sampler.set_rnd"):
        (few,) = manager.load([{**compat.task_config(manager, "copy"), "num_fewshot": 3, "fewshot_split": "test"}])[
            "tasks"
        ].values()
        compat.draw_examples_by_item(few)
        docs = list(few.eval_docs)
        prompts = [few.fewshot_context(doc, 3) for doc in docs]
        assert [few.fewshot_context(doc, 3) for doc in docs[::-1]] == prompts[::-1]
        assert all(prompt.count(doc["question"]) == 1 for doc, prompt in zip(docs, prompts, strict=True))
        assert len({prompt[:10] for prompt in prompts}) > 1


def test_an_option_by_a_number_with_a_point(task: Any) -> None:
    with assumed("lm-eval", "doc_to_target(doc) is what construct_requests, the prompt and process_results ask"):
        doc = {**next(iter(task.eval_docs)), "answer": 1.0}
        compat.read_whole_numbers(task)
        assert task.doc_to_target(doc) == 1
        assert isinstance(task.doc_to_target(doc), int)
        assert task.process_results(doc, [(-2.0, False), (-1.0, False), (-3.0, False)]) == {"acc": 1.0}
        del task.doc_to_target


def test_what_a_template_comes_to_before_it_is_text() -> None:
    with assumed("lm-eval", "lm_eval.utils.env is a jinja environment, of which an expression has a value"):
        doc = {"right": "0", "names": ["a", "b"], "label": 2}
        assert compat.template_value("{{right}}", doc) == "0"
        assert compat.template_value("{{ names }}", doc) == ["a", "b"]
        assert compat.template_value("{{label - 1}}", doc) == 1
        assert compat.template_value("{{label}}{{right}}", doc) == "20"
        assert compat.template_value("is {{label}}", doc) == "is 2"


def test_a_scored_item_is_noted_with_the_hash_of_its_document(task: Any) -> None:
    with assumed("lm-eval", "doc_hash of a sample is the SHA-256 of the document as indented JSON"):
        from lm_eval.evaluator import evaluate
        from lm_eval.models.dummy import DummyLM

        results = evaluate(DummyLM(), {"tasks": {"copy": task}}, bootstrap_iters=0, log_samples=True)
        samples = results["samples"]["copy"]
        assert len(samples) == 6
        assert [compat.document_hash(sample["doc"]) for sample in samples] == [s["doc_hash"] for s in samples]
        assert [compat.document_hash(doc) for doc in task.eval_docs] == [s["doc_hash"] for s in samples]


def test_filters_have_names(task: Any) -> None:
    with assumed("lm-eval", "the filters of a task's answers are in _filters, each with a name; `none` if none is set"):
        assert [answers.name for answers in task._filters] == ["none"]
        assert compat.filter_names(task) == compat.filter_names(object()) == ["none"]


def test_documents_are_decoded_once(task: Any) -> None:
    with assumed("lm-eval", "a task's documents come from the methods test_docs and validation_docs"):
        compat.decode_once(task)
        assert task.test_docs() is task.test_docs()
        assert len(task.test_docs()) == len(task.eval_docs) == 6


def test_windows_over_a_long_text() -> None:
    """For log-likelihoods of whole texts: every token is scored once, after as many others as fit."""
    with assumed("lm-eval", "get_rolling_token_windows and make_disjoint_window cut a text into (context, scored)"):
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        windows = [make_disjoint_window(w) for w in get_rolling_token_windows([3, 4, 5, 6, 7], 1, 2, 1)]
        assert [token for _, scored in windows for token in scored] == [3, 4, 5, 6, 7]
        assert windows[0] == ([1], [3, 4])


def test_generation_stops_at_strings() -> None:
    with assumed(
        "lm-eval", "stop_sequences_criteria(tokenizer, stops, prompt width, rows) makes transformers' criteria"
    ):
        import torch
        from lm_eval.models.utils_hf import stop_sequences_criteria

        words = tokenizer()
        ids = torch.tensor([words("ab.")["input_ids"]])
        assert bool(torch.as_tensor(stop_sequences_criteria(words, ["."], 1, 1)(ids, None)).all())
        assert not bool(torch.as_tensor(stop_sequences_criteria(words, ["?"], 1, 1)(ids, None)).any())


@pytest.mark.usefixtures("code_allowed")
def test_functions_of_a_definition_are_imported_from_beside_it(tmp_path: Path) -> None:
    with assumed("lm-eval", "_yaml_loader._import_func_in_yml(name, folder) imports what !function names"):
        (tmp_path / "helper.py").write_text("def text(doc):\n    return doc['x']\n")
        assert compat.function_of("helper.text", tmp_path)({"x": 3}) == 3
        assert compat.function_of("os.path.join", tmp_path)("a", "b") == "a/b"
        for name in ("helper.gone", "gone_gone.text", "text"):
            with pytest.raises((AttributeError, ImportError, ValueError)):
                compat.function_of(name, tmp_path)


def test_a_definition_is_built_from_a_mapping_that_no_index_knows(folder: Path) -> None:
    from lm_eval.tasks import TaskManager

    with assumed("lm-eval", "TaskManager.load builds a task of a mapping, whether or not it has seen its file"):
        bare = TaskManager(include_defaults=False)
        config = compat.task_config(TaskManager(include_path=[str(folder)], include_defaults=False), "copy")
        (built,) = bare.load([{**config, "task": "an other/name"}])["tasks"].values()
        assert len(list(built.test_docs())) == 6


def test_aggregations_are_asked_of_the_task(task: Any) -> None:
    with assumed("lm-eval", "scoring takes a metric's aggregation from task.aggregation(), which may be replaced"):
        from lm_eval.api.metrics import mean
        from lm_eval.evaluator_utils import _compute_task_aggregations

        values = {("acc", "none"): [1.0, 0.0], ("more", "none"): [1.0, 2.0]}
        with compat.aggregations_of(task, lambda metric, aggregation: lambda items: (metric, aggregation is mean)):
            results, _ = _compute_task_aggregations(task, values, 0)
        assert results["acc,none"] == ("acc", True)
        assert results["more,none"] == ("more", True), "a metric without an aggregation is averaged"
        results, _ = _compute_task_aggregations(task, values, 0)
        assert results["acc,none"] == 0.5


def test_standard_errors_are_those_of_lm_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    with assumed("lm-eval", "stderr_for_metric knows which aggregations have a standard error, and draws by seed"):
        from lm_eval.api import metrics

        monkeypatch.setenv("DISABLE_MULTIPROC", "1")
        lengths = [-1.0, -2.5, -0.3, -4.0]
        pairs = [(0, 1), (1, 1), (0, 0), (1, 0), (1, 1)]
        texts = [("a cat sat", "a cat sat"), ("a dog ran", "the dog ran off"), ("hm", "hm no")]
        for aggregation, values, draws in (
            (metrics.mean, lengths, 1000),
            (metrics.perplexity, lengths, 1000),
            (metrics.matthews_corrcoef, pairs, 100),
            (metrics.chrf, texts, 100),
        ):
            own = metrics.stderr_for_metric(aggregation, draws)
            assert own is not None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = own(values)
            assert compat.standard_error(aggregation, values, draws=1000) == pytest.approx(expected)
        assert compat.standard_error(metrics.brier_score, [], draws=1000) is None
        assert compat.standard_error(None, lengths, draws=1000) == metrics.mean_stderr(lengths)
        assert compat.standard_error(metrics.mean, [1.0], draws=1000) is None


STAGES: dict[str, tuple[dict[str, Any], str]] = {
    "definition": ({"no_such_key": 1}, "definition"),
    "data": ({"dataset_kwargs": {"data_files": {"test": "/nowhere.jsonl"}}}, "data"),
    "splits": ({"test_split": "dev"}, "splits"),
    "items": ({"doc_to_target": "{{5 + answer}}"}, "items"),
}


@pytest.mark.parametrize("kind", STAGES)
def test_where_a_task_could_not_be_built(kind: str, manager: Any) -> None:
    changes, stage = STAGES[kind]
    with assumed(
        "lm-eval", "ConfigurableTask.__init__ reads data in `download`, then sets `features`, then tries an item"
    ):
        with pytest.raises(compat.BuildError) as failed:
            compat.build_task(manager, {**compat.task_config(manager, "copy"), **changes})
        assert failed.value.stage == stage
        assert isinstance(failed.value.__cause__, Exception)
        if stage == "items":
            built = failed.value.task
            assert built.doc_to_text(built.task_docs[0]) == "ab0?"
