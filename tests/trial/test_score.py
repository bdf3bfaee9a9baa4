"""What was trained elsewhere is scored as trials are, and known by what it is and not by where it lies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.errors import ModelError
from mosld_bench.inputs.adapter import read_adapter
from mosld_bench.inputs.items import sample
from mosld_bench.records.scored import ScoredOutcome
from mosld_bench.records.store import Store
from mosld_bench.spec.trial import EvaluateSpec, ModelSpec, Resources
from mosld_bench.trial.score import Scoring, check_scoring, results_table, score
from mosld_bench.trial.session import Session, WorkerConfig
from tests.conftest import REPOSITORY
from tests.support.adapters import write_adapter
from tests.support.runs import prepare, run_inline

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore:.*is_gradient_checkpointing.*:FutureWarning"
)

TASKS = ("emb_visit", "emb_story")
LIMIT = 12


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(WorkerConfig(task_folders=(str(REPOSITORY / "tasks"),), resources=Resources(score_tokens=2048)))


def _scored(folder: Path | None, session: Session, *, model: str = "embedded", tasks: tuple[str, ...] = TASKS,
            limit: int | None = LIMIT) -> ScoredOutcome:  # fmt: skip
    scoring = Scoring(
        study="scored", title="mine", model=ModelSpec(name=model), adapter=read_adapter(folder) if folder else None,
        tasks=tasks, evaluate=EvaluateSpec(limit=limit), dtype="float32",
    )  # fmt: skip
    return score(scoring, session, check_scoring(scoring, session))


@pytest.mark.parametrize("recipe", ["lora", "mosld"])
def test_stock_lm_eval_and_packed_scoring_give_the_same_scores(
    recipe: str, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same items; the log-likelihoods differ by rounding alone."""
    write_adapter(tmp_path / "adapter", recipe)
    outcome = _scored(tmp_path / "adapter", session)
    monkeypatch.chdir(REPOSITORY / "tasks" / "embedded")  # where lm-eval looks for the data files
    theirs = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(MODEL_DIR), "peft": str(tmp_path / "adapter"), "dtype": "float32"},
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=".", include_defaults=False),
        samples={task: sample(session.tasks.get(task), LIMIT, 0) for task in TASKS},
        batch_size=16,
        device="cpu",
        bootstrap_iters=0,
    )
    for metric in outcome.record.metrics:
        assert metric.value == theirs["results"][metric.task][metric.metric], (metric.task, metric.metric)
    for task in TASKS:
        ours = outcome.items[outcome.items["task"] == task].sort_values("doc")
        entries = sorted(theirs["samples"][task], key=lambda entry: entry["doc_id"])
        assert [entry["doc_id"] for entry in entries] == list(ours["doc"])
        for entry, logliks in zip(entries, ours["logliks"], strict=True):
            assert list(logliks) == pytest.approx([float(value) for value, _ in entry["filtered_resps"]], abs=2e-4)


def test_a_kept_adapter_scores_as_its_trial_did(tiny: Path) -> None:
    """Its record says so, and that it was not trained here; the study's records stay as they are."""
    _, planned, config = prepare(tiny, recipes=["mosld"], frozen_base=False)
    (outcome,) = run_inline(planned, config, tiny / "results")
    store, session = Store(tiny / "results"), Session(config)
    folder = store.folder(outcome.record.trial) / "adapter"
    scoring = Scoring(
        study="tiny", title="mine", model=outcome.record.trial.model.model_copy(update={"folder": str(tiny / "model")}),
        adapter=read_adapter(folder), tasks=("copy", "count", "other"), evaluate=EvaluateSpec(), dtype="float32",
    )  # fmt: skip
    scored = score(scoring, session, [])
    same = {(m.task, m.metric): (m.value, m.stderr) for m in outcome.record.metrics}
    assert {(m.task, m.metric): (m.value, m.stderr) for m in scored.record.metrics} == same
    assert outcome.record.size is not None
    assert scored.record.parameters.trainable == outcome.record.size.trainable
    assert scored.record.parameters.total == outcome.record.size.total
    assert scored.record.task_digests == outcome.record.trial.task_digests
    assert scored.record.kind == "scored"
    written = store.write_scored(scored)
    assert [path.name for path in sorted(written.iterdir())] == ["items.parquet", "scored.json"]
    assert list(store.scored("tiny")) == [scored.record]
    assert [record.trial_id for record in store.records("tiny")] == [outcome.record.trial_id]
    items = store.scored_items(scored.record)
    assert items is not None
    assert list(items["score"]) == list(scored.items["score"])


def test_an_adapter_is_known_by_its_content(session: Session, tmp_path: Path) -> None:
    write_adapter(tmp_path / "here", "lora")
    first = _scored(tmp_path / "here", session, tasks=("emb_visit",), limit=2).record
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    file = tmp_path / "there" / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"base_model_name_or_path": "/somebody/else/embedded", "peft_version": "0.1"}))
    elsewhere = _scored(tmp_path / "there", session, tasks=("emb_visit",), limit=2).record
    assert elsewhere.scored_id == first.scored_id
    assert elsewhere.adapter is not None
    assert elsewhere.adapter.base_model == "embedded", "where it lay is not told"
    file.write_text(json.dumps(config | {"lora_alpha": 1 + config["lora_alpha"]}))
    other = _scored(tmp_path / "there", session, tasks=("emb_visit",), limit=2).record
    more = _scored(tmp_path / "here", session, tasks=("emb_visit",), limit=3).record
    alone = _scored(None, session, tasks=("emb_visit",), limit=2).record
    assert len({record.scored_id for record in (first, other, more, alone)}) == 4
    assert (alone.adapter, alone.parameters.trainable, alone.parameters.total) == (None, None, 903_936)


@pytest.mark.parametrize("recipe", ["ia3", "vera", "mixlora", "adalora", "prompt-tuning", "oft", "lokr", "pissa"])
def test_adapters_of_many_kinds_fit_and_score_as_in_memory(recipe: str, session: Session, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from mosld_bench.spec.trial import Domain
    from mosld_bench.trial.packed_lm import PackedLM
    from mosld_bench.trial.scoring import evaluate

    model = write_adapter(tmp_path / "adapter", recipe)
    outcome = _scored(tmp_path / "adapter", session, tasks=("emb_visit",), limit=4)
    lm = PackedLM(model, AutoTokenizer.from_pretrained(MODEL_DIR), tokens=2048)
    tasks = {"emb_visit": session.tasks.get("emb_visit")}
    held = evaluate(lm, tasks, {"emb_visit": Domain.OUT}, limit=4, sample_seed=0)
    for ours, theirs in zip(outcome.items["logliks"], held.items["logliks"], strict=True):
        assert list(ours) == pytest.approx(list(theirs), abs=1e-4)


def test_a_fully_trained_model_is_scored_as_a_model(session: Session, tmp_path: Path) -> None:
    write_adapter(tmp_path / "whole", "full")
    shutil.copy(MODEL_DIR / "tokenizer.json", tmp_path / "whole")
    shutil.copy(MODEL_DIR / "tokenizer_config.json", tmp_path / "whole")
    from mosld_bench.spec.model_folder import located

    spec = located(ModelSpec(name=str(tmp_path / "whole")))
    scoring = Scoring(study="scored", title="mine", model=spec, adapter=None, tasks=("emb_visit",),
                      evaluate=EvaluateSpec(limit=4), dtype="float32")  # fmt: skip
    record = score(scoring, session, check_scoring(scoring, session)).record
    assert record.scored_id.startswith("scored-whole-")
    assert record.model.revision, "a folder is known by what is in it"
    assert str(tmp_path) not in record.model_dump_json()


def test_an_adapter_of_another_shape_is_refused_in_a_sentence(session: Session, tmp_path: Path) -> None:
    from tests.support.models import build, config

    write_adapter(tmp_path / "narrow", "lora", model=build(config()))
    with pytest.raises(ModelError, match=r"narrow \(LORA\) does not fit the model 'embedded'"):
        _scored(tmp_path / "narrow", session, limit=2)
    short = build(config(layers=2, hidden_size=64, intermediate_size=128, num_key_value_heads=4))
    write_adapter(tmp_path / "short", "lora", model=short)
    with pytest.raises(ModelError, match="does not fit the model 'embedded'"):
        _scored(tmp_path / "short", session, limit=2)
    write_adapter(tmp_path / "damaged", "lora")
    (tmp_path / "damaged" / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="does not fit the model 'embedded'"):
        _scored(tmp_path / "damaged", session, limit=2)


def test_the_table_is_lm_evals_own(session: Session, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", "lora")
    record = _scored(tmp_path / "adapter", session, tasks=("emb_visit",)).record
    head, _, *rows = results_table(record, session).strip().splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == [
        "Tasks", "Version", "Filter", "n-shot", "Metric", "", "Value", "", "Stderr"
    ]  # fmt: skip
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    value = next(metric for metric in record.metrics if metric.metric == "acc,none")
    assert value.stderr is not None
    assert cells[0][:6] == ["emb_visit", "1", "none", "0", "acc", "↑"]
    assert (float(cells[0][6]), float(cells[0][8])) == (round(value.value, 4), round(value.stderr, 4))
    assert torch.is_grad_enabled()
