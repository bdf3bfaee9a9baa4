"""The command `merge` as one types it: what it prints, leaves and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mosld_bench.records.store import Store
from tests.cli.conftest import Command
from tests.conftest import REPOSITORY

KEPT = REPOSITORY / "results" / "smollm2"
RECIPES = ("lora-mixture-lora-r32-", "mosld-mixture-lora-r32-")


@pytest.fixture
def labs(tmp_path: Path) -> tuple[Path, Path]:
    """Records of the kept study as two machines would have them: some of two recipes, of which some are of both."""
    folders = sorted(path.parent for path in KEPT.glob("*/record.json") if path.parent.name.startswith(RECIPES))
    labs = tmp_path / "lab-a", tmp_path / "lab-b"
    for lab, own in zip(labs, (folders[:4], folders[2:]), strict=True):
        for folder in own:
            shutil.copytree(folder, lab / "results" / "smollm2" / folder.name)
    return labs


def test_two_labs_are_merged_and_reported(labs: tuple[Path, Path], command: Command, tmp_path: Path) -> None:
    dry = command("merge", *map(str, labs), "--dry-run")
    assert dry.code == 0, dry.err
    assert not (tmp_path / "results").exists()
    done = command("merge", *map(str, labs))
    assert (done.code, done.err) == (0, "")
    assert f"merged: smollm2 (six trials) in {tmp_path / 'results'}" in done.out
    rows = [line.split("│")[1:-1] for line in done.out.splitlines() if "smollm2 │" in line]
    assert [[cell.strip() for cell in row[2:]] for row in rows] == [
        ["4", "4", "0", "0", "0"],
        ["4", "2", "2", "0", "0"],
    ]
    report = json.loads(command("compare", "lora", "mosld", "--study", "smollm2", "--json").out)
    paired = [score["seeds"] for pair in report["pairs"] for score in pair["scores"]]
    assert paired
    assert all(seeds == {"a": [0, 1, 2], "b": [0, 1, 2], "paired": True} for seeds in paired)
    again = command("merge", *map(str, labs))
    assert (again.code, len(list(Store(tmp_path / "results").records("smollm2")))) == (0, 6)


def test_what_contradicts_and_what_cannot_be_read_is_told(
    labs: tuple[Path, Path], command: Command, tmp_path: Path
) -> None:
    folders = sorted((labs[1] / "results" / "smollm2").iterdir())
    path = folders[0] / "record.json"
    content = json.loads(path.read_text())
    content["metrics"][0]["value"] += 0.25
    path.write_text(json.dumps(content))
    done = command("merge", *map(str, labs))
    assert done.code == 2
    assert done.err.startswith("mosld-bench: One trial has one id and different numbers:\n  smollm2/")
    assert f" in {labs[0]} (" in done.err
    assert f" in {labs[1]} (" in done.err
    assert not (tmp_path / "results").exists()
    assert command("merge", *map(str, labs), "--dry-run").code == 2
    assert "Did you mean 'newest'" in command("merge", *map(str, labs), "--keep", "newst").err
    path.write_text("{")
    done = command("merge", *map(str, labs), "--to", str(tmp_path / "all"))
    assert done.code == 1
    assert f"unreadable: {path}" in done.out
    assert len(list(Store(tmp_path / "all").records())) == 6
