"""What the repository keeps as its evidence: reports follow from records, and the pages' tables from reports."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.reporting.labels import percent
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY, bench, declarations, tracked

TRACKED = tracked("results", "reports")
RECORDS = [path for path in TRACKED if path.endswith("record.json")]
KEPT = sorted({path.split("/")[1] for path in RECORDS})


def test_records_say_where_they_come_from() -> None:
    assert {"smollm2", "parameters"} <= set(KEPT)
    for path in RECORDS:
        record: dict[str, Any] = json.loads((REPOSITORY / path).read_text(encoding="utf-8"))
        meta = record["meta_info"]
        assert record["status"] == "finished", path
        assert len(meta["commit"]) == 40, path
        assert meta["dirty"] is False, path
        assert {"torch", "transformers", "peft", "lm_eval", "mosld_bench"} <= meta["versions"].keys(), path
        assert meta["hardware"]["cores"] > 0, path
    assert sum((REPOSITORY / path).stat().st_size for path in TRACKED) < 22e6


def test_no_page_is_kept_since_it_follows_from_the_records() -> None:
    assert not [p for p in TRACKED if p.endswith(("index.html", "overview.json", "texts.parquet")) or "/items/" in p]


def test_of_the_figures_those_are_kept_as_images_that_a_page_shows() -> None:
    """The others are in their report's PDF and beside it as PDF."""
    pages = [REPOSITORY / path for path in tracked("README.md", "*/README.md")]
    shown = {
        (page.parent / target).resolve()
        for page in pages
        for target in re.findall(r"!\[[^]]*\]\(([^)]+\.png)\)", page.read_text(encoding="utf-8"))
    }
    assert {REPOSITORY / path for path in TRACKED if path.endswith(".png")} == shown


@pytest.mark.parametrize("study", KEPT)
def test_the_tables_of_a_kept_report_follow_from_its_records(study: str, tmp_path: Path) -> None:
    declarations(tmp_path)
    for path in tracked(f"results/{study}"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / path, tmp_path / path)
    done = bench("report", study, "--root", str(tmp_path), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    rebuilt = {path.name: path for path in (tmp_path / "reports" / study / "tables").iterdir()}
    kept = {Path(path).name: REPOSITORY / path for path in tracked(f"reports/{study}/tables")}
    assert rebuilt.keys() == kept.keys()
    for name, table in kept.items():
        assert rebuilt[name].read_text(encoding="utf-8") == table.read_text(encoding="utf-8"), name


@pytest.mark.parametrize(
    ("study", "page", "columns"),
    [("embedded", "README.md", "in-domain |"), ("smollm2", "reports/smollm2/README.md", "seeds | in-domain |")],
)
def test_the_table_of_a_page_is_that_of_the_report(study: str, page: str, columns: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    head = f"| method | trainable parameters | {columns} out-of-domain |"
    table = text[text.index(head) :].split("\n\n")[0].splitlines()[2:]
    with (REPOSITORY / "reports" / study / "tables" / "main.csv").open(encoding="utf-8") as file:
        rows = {row["recipe"]: row for row in csv.DictReader(file) if row["setting"] in {"frozen", "mixture"}}
    assert len(table) == len(rows)
    titles = {"Frozen base": "base", "Full fine-tuning": "full"}
    for line in table:
        title, trainable, *seeds, inside, outside = (cell.strip() for cell in line.strip("|").split("|"))
        row = rows[titles.get(title, title.lower())]
        assert trainable == f"{int(row['trainable_parameters'] or 0):,}", line
        assert seeds in ([], [row["seeds"]]), line
        assert (inside, outside) == (_shown(row, "in_domain"), _shown(row, "out_of_domain")), line


def test_the_report_of_the_main_command_is_of_every_method_with_three_seeds() -> None:
    """CI runs that command with one seed."""
    workspace = Workspace(REPOSITORY, REPOSITORY)
    seeds: dict[str, set[int]] = defaultdict(set)
    for trial in Study.load(workspace.study_file("embedded"), {"recipes": ["all"]}).plan(workspace):
        seeds[trial.recipe.name].add(trial.seed)
    assert {len(of_recipe) for recipe, of_recipe in seeds.items() if recipe != "base"} == {3}
    with (REPOSITORY / "reports" / "embedded" / "tables" / "main.csv").open(encoding="utf-8") as file:
        rows = {row["recipe"]: int(row["seeds"]) for row in csv.DictReader(file)}
    assert rows == {recipe: len(of_recipe) for recipe, of_recipe in seeds.items()}


def _shown(row: dict[str, str], domain: str) -> str:
    sd = row[f"{domain}_sd"]
    return percent(float(row[f"{domain}_mean"])) + (f" ± {percent(float(sd))}" if sd else "")
