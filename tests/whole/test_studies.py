"""Every study at its smallest: planned offline as it is, and run from plan to PDF on the small model."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pypdf import PdfReader
from rich.console import Console

from mosld_bench import display, pipeline
from mosld_bench.embedded import MODEL_DIR
from mosld_bench.inputs.source_note import NOTE
from mosld_bench.scheduling import Options, make_plan
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY, bench, declarations

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

WORKSPACE = Workspace(REPOSITORY, REPOSITORY)
STUDIES = sorted(WORKSPACE.studies())

#: Overrides that make every study small; its tasks, settings, recipes, axes, precision and checkpointing stay.
SMALL: dict[str, Any] = {
    "model": {"name": "embedded"},
    "seeds": [0],
    "budget_tolerance": 0.6,
    "evaluate.limit": 2,
    "train.steps": 2,
    "train.batch_size": 4,
    "train.validation_items": 2,
}
#: Study -> overrides of its own, beside these.
OVERRIDES: dict[str, dict[str, Any]] = {
    "paper": {  # every recipe on the mixture, and two of them in all other cells too
        "in_domain": ["arc_easy_letters", "race_letters"],
        "parts": [{"recipes": ["all"], "settings": ["mixture"], "budgets": ["r8"]}, {"recipes": ["lora", "mosld"]}],
    },
    "smollm2": {"parts": [{"recipes": ["all"]}, {"recipes": ["mosld"], "settings": ["single"]}]},
    "diverse": {"recipes": ["lora", "mosld"]},
    "rank": {"recipes": ["lora", "mosld"]},
    "location": {"in_domain": ["arc_easy_letters", "race_letters"]},
    "general-data": {"general": {"task": "openorca", "items": [0, 4, 8]}, "in_domain": ["arc_easy_letters"]},
    "scaling": {"recipes": ["lora", "mixlora", "mosld"], "in_domain": ["openbookqa_letters"]},
    "budget": {"recipes": ["lora", "mosld"]},
    "parameters": {},
    "dissimilar": {"parts": [{"recipes": ["mosl", "mosld"], "settings": ["mixture"]}]},
    "scarce": {"recipes": ["mosl", "mosld"], "task_items": [8, 16]},
    "imbalance": {"recipes": ["mosl", "mosld"]},
    "ablation": {"recipes": ["factorial", "mosld.top_k-none"], "budgets": ["60k", "r8"]},
}


def test_the_studies_are_those_of_the_paper_and_ours() -> None:
    assert set(STUDIES) == {
        "embedded", "smollm2", "smollm2-budget", "paper", "location", "dropout", "general-data", "allocation",
        "uncommon", "scaling", "parameters", "rank", "budget", "diverse", "dissimilar", "scarce", "imbalance",
        "ablation", "ablation-smollm2", "controls", "targets", "since",
    }  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_planned_offline_as_it_is(name: str) -> None:
    plan = make_plan(Study.load(WORKSPACE.study_file(name)), WORKSPACE)
    assert len({trial.id for trial, _ in plan.planned}) == len(plan.planned) > 1
    for trial, fit in plan.planned:
        if fit.target is not None:
            assert fit.residual is not None
            assert abs(fit.residual) <= trial.tolerance
    assert plan.refusals(80e9) == []
    sentences = " ".join(display.plan_sentences(plan, 8, 80e9))
    assert ("GPU-hours" in sentences) == (name != "parameters")
    assert display.plan_table(plan).row_count > 1
    narrow = Console(width=80, file=StringIO(), record=True)
    narrow.print(display.plan_table(plan, 80))
    printed = narrow.export_text()
    assert f"{plan.planned[-1].fit.trainable:,}" in printed
    assert "…" not in printed


@pytest.mark.parametrize("name", ["smollm2", "smollm2-budget"])
def test_learning_rates_are_the_best_of_the_search(name: str) -> None:
    """For every method that trains, the lowest validation loss of its search, with a rate tried on either side."""
    searched = pd.read_csv(REPOSITORY / "reports" / "smollm2" / "learning_rates.csv").set_index("recipe")
    trials = Study.load(WORKSPACE.study_file(name)).plan(WORKSPACE)
    recipes = {trial.recipe.name: trial for trial in trials if trial.setting != "frozen"}
    assert recipes.keys() <= set(searched.index)
    for recipe, trial in recipes.items():
        losses = searched.loc[recipe].set_index("learning_rate")["validation_loss"]
        assert trial.train is not None
        rate = trial.train.learning_rate * trial.recipe.learning_rate_scale
        assert losses.index.min() < rate < losses.index.max(), recipe
        assert losses.idxmin() == pytest.approx(rate), recipe


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the repository's declarations and published tables."""
    root = declarations(tmp_path_factory.mktemp("studies"))
    for model in Study.load(WORKSPACE.study_file("scaling")).models:  # the small model under the names of large ones
        folder = root / "models" / model.name
        shutil.copytree(MODEL_DIR, folder, ignore=shutil.ignore_patterns(NOTE))  # it is of no pinned revision
    return root


#: Run by default, with one model and with several; the others differ in a setting or two and are slow together.
FIRST = {"paper", "scaling"}


@pytest.mark.parametrize(
    "name", [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in STUDIES]
)
def test_a_study_runs_from_plan_to_pdf(name: str, root: Path, miniature: Path) -> None:
    workspace = Workspace(root, root)
    overrides = {} if name == "parameters" else SMALL | OVERRIDES.get(name, {})
    models = root / "models" if name == "scaling" else None
    if models:
        del overrides["model"]
    study = Study.load(workspace.study_file(name), overrides)
    plan = make_plan(study, workspace, model_root=models)
    options = Options(executor="inline", gpus=0, data_root=miniature, model_root=models)
    assert pipeline.run(plan, workspace, Console(quiet=True), options) == 0

    records = [json.loads(path.read_text()) for path in (root / "results" / name).glob("*/record.json")]
    assert len(records) == len(plan.planned)
    assert {record["status"] for record in records} == {"finished"}
    tables = root / "reports" / name / "tables"
    text = "".join(page.extract_text() for page in PdfReader(root / "reports" / name / "report.pdf").pages)
    flat = "".join(text.split())
    assert "".join(study.question.split()) in flat
    if study.train:
        main = pd.read_csv(tables / "main.csv")
        assert set(main["recipe"]) == {trial.recipe.name for trial, _ in plan.planned}
        assert main["in_domain_mean"].notna().all()
        assert "Overlap" in text
    if study.axis:
        assert (root / "reports" / name / "figures" / "axis.png").stat().st_size > 5_000
    if study.published:
        assert "Reproduction" in text
        assert "Slips" in text or name in {"location"}
    if study.train and study.published:
        rows = pd.read_csv(tables / "reproduction.csv")
        assert set(rows["verdict"]) == {"untested" if name == "scaling" else "other model"}
        gaps = rows["gap"].dropna() - (rows["ours"] - rows["published"]).dropna()
        assert gaps.abs().max() < 1e-5


def test_parameters_prints_table_5s_digits_and_the_slip_in_the_unit(root: Path) -> None:
    done = bench("run", "parameters", "--root", str(root), "--overwrite", "always")
    assert done.returncode == 0, done.stderr
    assert "the unit is 100 times too large" in done.stdout
    table = pd.read_csv(root / "reports" / "parameters" / "tables" / "parameters.csv", dtype=str).set_index("recipe")
    for recipe, count, digits in (("lora", "4194304", "0.419"), ("mola", "22282240", "2.228"),
                                  ("mosld", "13893632", "1.389")):  # fmt: skip
        row = table.loc[recipe]
        assert (row["trainable_parameters"], row["digits"], row["printed_billions"]) == (count, digits, digits)
    assert table.loc["mosld", "verdict"] == "digits agree, forward differs"
    assert table.loc["full", "verdict"] == "agrees"
