"""The profile: what is measured, its quotients, its file, its command, and its section of the report."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pypdf import PdfReader
from rich.console import Console

from mosld_bench import display, pipeline
from mosld_bench.cost import measure, turn
from mosld_bench.cost.measure import Options
from mosld_bench.errors import BadFileError, BenchError, ModelError, ResourceError
from mosld_bench.methods import registry
from mosld_bench.methods.live import copy_sharing_weights, stored
from mosld_bench.records.profile import Entry, Profile
from mosld_bench.records.store import Store
from mosld_bench.scheduling import make_plan
from mosld_bench.spec.recipe import Recipe, load_recipes
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Fit
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial import WorkerConfig
from tests.conftest import REPOSITORY, bench
from tests.support import models
from tests.support.runs import run_inline
from tests.support.synthetic import make_entry, make_profile

RECIPES = load_recipes(REPOSITORY / "methods")
SMALL = measure.workload(batch=2, streams=1, prompt_tokens=16, new_tokens=4, rounds=1)


@pytest.mark.filterwarnings("ignore:Could not find a config file")  # of a model made in memory, says PEFT 0.19
@pytest.mark.parametrize(
    ("name", "trained", "active"),
    [  # hidden 32, keys 16, feed-forward 48, four layers, rank 2; 20 experts in all where they differ by depth
        ("base", 0, 0),
        ("lora", 4 * 2 * (64 + 48), 4 * 2 * (64 + 48)),
        ("moe-lora", 4 * 5 * (2 * (64 + 48) + 64), 4 * 5 * (2 * (64 + 48) + 64)),
        ("mola", 20 * (2 * (64 + 48) + 64), 4 * 2 * 2 * (64 + 48) + 20 * 64),
        ("mosld", 4 * 2 * 64 + 20 * (2 * 48 + 64), 4 * 2 * 64 + 4 * 2 * 2 * 48 + 20 * 64),
        ("mosld-b", 4 * 2 * 48 + 20 * (2 * 64 + 64), 4 * 2 * 48 + 4 * 2 * 2 * 64 + 20 * 64),
        ("mixlora", 4 * (448 + 8 * 480 + 256), 4 * (448 + 2 * 480 + 256)),
        ("prefix-tuning", 20 * 4 * 2 * 16, 20 * 4 * 2 * 16),
    ],
)
def test_active_and_stored_parameters_by_hand(name: str, trained: int, active: int, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    method = registry.get(recipe.method)
    params = {**recipe.params, **({"r": 2} if "r" in recipe.params else {})}
    model = method.attach(models.build(models.config()), params)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained
    assert method.active(model) == active
    assert stored(model) == trained
    if trained:
        from safetensors.torch import load_file

        model.save_pretrained(tmp_path)  # type: ignore[operator]
        assert sum(t.numel() for t in load_file(tmp_path / "adapter_model.safetensors").values()) == trained


def test_of_full_fine_tuning_the_whole_model_is_stored() -> None:
    base = models.build(models.config())
    model = registry.get("full").attach(copy_sharing_weights(base), {})
    assert stored(model, base) == registry.get("full").active(model) == sum(p.numel() for p in base.parameters())


def entry(name: str, train: tuple[float, ...], prompt: tuple[float, ...]) -> Entry:
    return make_entry(name, train, prompt).model_copy(
        update={"recipe": RECIPES[name], "train_memory": tuple(2**20 for _ in train)}
    )


def made(**changes: Any) -> Profile:
    entries = (
        entry("base", (), (1.0, 2.0, 4.0)),
        entry("lora", (4.0, 4.0, 4.0), (2.0, 3.0, 4.0)),
        entry("mosld", (4.0, 6.0, 8.0), (3.0, 3.0, 8.0)),
    )
    values = {
        "study": "tiny",
        "load": measure.workload(batch=2, streams=3, prompt_tokens=16, new_tokens=4, rounds=3), "entries": entries,
        "meta_info": {"dirty": False, "command": "mosld-bench profile tiny"},
    }  # fmt: skip
    return make_profile(**{**values, **changes})


def test_quotients_are_taken_within_a_round() -> None:
    profile = made()
    base, lora, mosld = profile.entries
    assert profile.relative(lora, "prompt") == (1.5, 1.0, 2.0)
    assert profile.relative(mosld, "decode") == (2.0, 1.5, 3.0)
    assert profile.relative(mosld, "train") == (1.5, 1.0, 2.0)
    assert (
        profile.relative(base, "prompt") is profile.relative(lora, "train") is profile.relative(base, "train") is None
    )
    assert profile.rate(lora, "train") == (8.0, 8.0, 8.0)
    assert profile.rate(mosld, "decode") == (1.0, 3 / 8, 1.0)


def test_file_and_terminal(tmp_path: Path) -> None:
    store, profile = Store(tmp_path), made()
    path = store.write_profile(profile)
    assert path == tmp_path / "tiny" / "profile.json"
    assert store.profile("tiny") == profile
    assert [file.name for file in path.parent.iterdir()] == ["profile.json"]
    path.write_text(json.dumps({"study": "tiny"}))
    with pytest.raises(BadFileError, match="holds no profile"):
        store.profile("tiny")
    large = tuple(
        e.model_copy(update={"active": 6_738_415_616, "train_memory": (80 * 2**30,)}) for e in profile.entries
    )
    for width in (80, 120, 160):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(display.profile_table(made(entries=large), width))
        text = console.export_text()
        assert "…" not in text
        assert "mosld" in text


def test_command_and_its_file(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("methods", "tasks", "reports"):
        (root / name).symlink_to(REPOSITORY / name)
    small = ("--methods", "lora,mosld", "--rounds", "1", "--prompt-tokens", "16", "--new-tokens", "4")
    done = bench("profile", "embedded", *small, "--root", str(root))
    assert done.returncode == 0, done.stderr
    assert "Counted and calculated FLOPs differ by at most 0.00%." in done.stdout
    profile = Store(root / "results").profile("embedded")
    assert profile is not None
    assert [entry.recipe.name for entry in profile.entries] == ["base", "lora", "mosld"]
    base, lora, mosld = profile.entries
    assert (base.train, lora.budget, mosld.stored, mosld.active) == ((), "60k", mosld.fit.trainable, 34_048)
    for row in profile.entries:
        assert row.recipe.name in done.stdout
        assert all(len(values) == 1 and values[0] > 0 for values in (row.prompt, row.decode))
        assert len(row.train) == len(row.train_memory) == (row is not base)
    assert {"commit", "versions", "hardware", "command"} <= profile.meta_info.keys()
    wrong = bench("profile", "embedded", "--rounds", "0", "--root", str(root))
    assert (wrong.returncode, wrong.stderr) == (2, "mosld-bench: --rounds takes 1 or more; given: 0.\n")


def measured(root: Path, options: Options, **overrides: Any) -> Profile:
    """Of the workspace's study, changed by ``overrides``."""
    study = Study.load(root / "reports" / "tiny" / "study.yaml", overrides)
    plan = make_plan(measure.narrowed(study), Workspace(root, root))
    return measure.profile(plan.study, plan.planned, plan.configs[plan.study.models[0].name], options)


def pdf_text(path: Path) -> str:
    return "".join(page.extract_text() for page in PdfReader(path).pages)


def test_section_of_the_report_comes_and_goes_with_the_file(tiny: Path) -> None:
    """Of a model whose weights are not there: what is measured depends on its shape alone."""
    study, workspace = Study.load(tiny / "reports" / "tiny" / "study.yaml"), Workspace(tiny, tiny)
    worker = WorkerConfig((str(workspace.tasks),), study.resources)
    run_inline(make_plan(study, workspace).planned, worker, workspace.results)
    (tiny / "model" / "model.safetensors").rename(tiny / "elsewhere")
    with pytest.raises(ModelError, match="Or give --random-weights"):
        measured(tiny, Options(SMALL, device="cpu"))
    profile = measured(tiny, Options(SMALL, device="cpu", random_weights=True), recipes=["lora", "mosld", "full"])
    (tiny / "elsewhere").rename(tiny / "model" / "model.safetensors")  # the records are of the folder with its weights
    path = Store(workspace.results).write_profile(profile)
    out = pipeline.report(study, workspace, ()).parent
    text = pdf_text(out / "report.pdf")
    assert "Cost at inference and in training" in text
    assert "with random weights" in text
    table = pd.read_csv(out / "tables" / "profile.csv").set_index("recipe")
    assert list(table.index) == ["base", "lora", "mosld", "full"]
    assert table["prompt_ms_median"]["lora"] == pytest.approx(1e3 * profile.entries[1].prompt[0], abs=1e-5)
    assert math.isnan(table["train_tokens_per_second_median"]["base"])
    formula = table["flops_a_token_formula"]["mosld"]
    assert table["flops_a_token"]["mosld"] == pytest.approx(formula, rel=1e-3)
    assert r"\begin{tabular}" in (out / "tables" / "profile.tex").read_text()
    assert {"relative-time.pdf", "relative-time.png"} <= {file.name for file in (out / "figures").iterdir()}
    base, lora, *others = profile.entries
    lora = lora.model_copy(update={"recipe": lora.recipe.model_copy(update={"learning_rate_scale": 2.0})})
    Store(workspace.results).write_profile(profile.model_copy(update={"entries": (base, lora, *others)}))
    pipeline.report(study, workspace, ())
    assert "lora" not in set(pd.read_csv(out / "tables" / "profile.csv")["recipe"])
    path.unlink()
    pipeline.report(study, workspace, ())
    assert not (out / "tables" / "profile.csv").exists()
    assert not (out / "figures" / "relative-time.pdf").exists()
    assert "Cost at inference" not in pdf_text(out / "report.pdf")


def test_every_round_has_every_recipe_and_bfloat16_answers_in_bfloat16(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    dtypes: set[torch.dtype] = set()
    take_turn, answer = turn.take_turn, turn._answer

    def watched_turn(bench: turn.Bench, recipe: Recipe, fit: Fit) -> turn.Turn:
        order.append(recipe.name)
        return take_turn(bench, recipe, fit)

    def watched_answer(bench: turn.Bench, model: torch.nn.Module, *, beside: int) -> turn.Turn:
        dtypes.update(parameter.dtype for parameter in model.parameters())
        return answer(bench, model, beside=beside)

    monkeypatch.setattr(measure, "take_turn", watched_turn)
    monkeypatch.setattr(turn, "_answer", watched_answer)
    load = SMALL.model_copy(update={"rounds": 2})
    overrides: dict[str, Any] = {"recipes": ["lora"], "train.gradient_checkpointing": True}
    profile = measured(tiny, Options(load, device="cpu", dtype="bfloat16"), **overrides)
    assert sorted(order[:2]) == sorted(order[2:]) == ["base", "lora"]
    assert dtypes == {torch.bfloat16}
    assert (profile.dtype, profile.checkpointing, len(profile.entries[1].train)) == ("bfloat16", True, 2)


def test_wrong_input(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchError, match="come to 304 positions, but the model has 256"):
        measured(tiny, Options(SMALL.model_copy(update={"prompt_tokens": 300}), device="cpu"))
    long = Options(SMALL.model_copy(update={"prompt_tokens": 240}), device="cpu")
    with pytest.raises(BenchError, match="20 virtual tokens of prefix-tuning, 240 tokens"):
        measured(tiny, long, recipes=["prefix-tuning"], budgets=["native"])
    with pytest.raises(BenchError, match="There is no dtype named 'int8'"):
        measured(tiny, Options(SMALL, device="cpu", dtype="int8"))
    with pytest.raises(BenchError, match="--new-tokens takes 1 or more; given: 0"):
        measure.workload(prompt_tokens=16, new_tokens=0)
    with pytest.raises(BenchError, match="one budget; given: 6k,9k"):
        measure.narrowed(Study.load(tiny / "reports/tiny/study.yaml", {"budgets": ["6k", "9k"]}), "6k,9k")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ResourceError, match="torch finds no CUDA device here"):
        measured(tiny, Options(SMALL, device="cuda"))
    monkeypatch.setattr(measure, "available", lambda device: 1000)
    with pytest.raises(ResourceError, match=r"To measure base takes about .* GB in float32, and cpu has 0\.0 GB free"):
        measured(tiny, Options(SMALL, device="cpu"))


@pytest.mark.gpu
def test_on_a_gpu_by_events_and_torch_s_own_count_of_memory(tiny: Path) -> None:
    """The same code with another clock; weights of the base count once, also for full fine-tuning."""
    options = Options(SMALL, device="cuda", dtype="bfloat16")
    profile = measured(tiny, options, recipes=["full", "prefix-tuning", "lora", "mosld"], budgets=["native"])
    assert profile.meta_info["hardware"]["gpu"]
    weights = 2 * profile.base_parameters
    for row in profile.entries:
        assert row.prompt[0] > 0
        assert row.decode[0] > 0
        assert weights <= row.decode_memory[0] < 100 * weights + 2**26
        assert not row.fit.trainable or row.train_memory[0] > weights
