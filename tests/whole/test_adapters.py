"""The page's way of an adapter out of the house, as one types it: kept, loaded, written with, scored by lm-eval, shown.

Every command of that part of results/README.md is run, `score` and `lm-eval` nowhere else.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.records.store import Store
from tests.conftest import REPOSITORY, bench, declarations
from tests.reporting.reading import read_csv
from tests.support.commands import python

pytestmark = pytest.mark.slow

HEADING = "\n## What a trial trained, elsewhere\n"


def _blocks(language: str) -> list[str]:
    section = (REPOSITORY / "results" / "README.md").read_text(encoding="utf-8").split(HEADING)[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.S)


def _table(printed: str) -> dict[str, list[str]]:
    """Metric -> value and standard error, of lm-eval's table of one task."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line[:1] == "|"]
    return {row[4]: [row[6], row[8]] for row in rows[2:]}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the page's first command has been run, cut in length."""
    root = declarations(tmp_path_factory.mktemp("kept") / "root")
    (first,) = _blocks("bash")[0].strip().splitlines()
    done = bench(*shlex.split(first)[1:], "--steps", "10", "--limit", "40", "--executor", "inline", cwd=root)
    assert done.returncode == 0, done.stderr
    return root


def _trial(root: Path, recipe: str) -> str:
    (folder,) = (root / "results" / "embedded").glob(f"{recipe}-mixture-*")
    return folder.name


@pytest.mark.parametrize("recipe", ["lora", "mosld"])
def test_the_code_of_the_page_writes_a_text(recipe: str, kept: Path) -> None:
    (code,) = _blocks("python")
    done = python("-c", code.replace("TRIAL", _trial(kept, recipe)), cwd=kept)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()[-1]) > len("the gorilla lives in the ")


def test_lm_eval_and_score_print_the_same_numbers(kept: Path) -> None:
    """The stock command for LoRA, the page's for MoSLD, and `score` for both, on all items of a task."""
    (line,) = _blocks("bash")[1].strip().splitlines()
    folder, words = line.removeprefix("cd ").split(" && ")[0], shlex.split(line.split(" && ")[1])[1:]
    for recipe in ("lora", "mosld"):
        told = [word.replace("TRIAL", _trial(kept, recipe)) for word in words]
        theirs = bench(*told, "--device", "cpu", "--batch_size", "16", cwd=kept / folder)
        assert theirs.returncode == 0, theirs.stderr
        adapter = f"results/embedded/{_trial(kept, recipe)}/adapter"
        ours = bench("score", "embedded", "--adapter", adapter, "--tasks", "emb_visit", cwd=kept)
        assert ours.returncode == 0, ours.stderr
        numbers = _table(ours.stdout)
        assert {"acc", "acc_norm"} <= numbers.keys()
        assert [[float(cell) for cell in row] for row in _table(theirs.stdout).values()] == [
            [float(cell) for cell in row] for row in numbers.values()
        ]
        if recipe == "lora":
            stock = [word.replace("pretrained=embedded", f"pretrained={MODEL_DIR}") for word in told[1:]]
            done = python("-m", "lm_eval", *stock, "--device", "cpu", "--batch_size", "16", cwd=kept / folder)
            assert _table(done.stdout) == _table(theirs.stdout), done.stderr


def test_what_was_scored_stands_in_the_report(kept: Path) -> None:
    *scores, report = (shlex.split(line, comments=True)[1:] for line in _blocks("bash")[2].strip().splitlines())
    for words in scores:
        told = [word.replace("TRIAL", _trial(kept, "mosld")) for word in words]
        done = bench(*told, cwd=kept)
        assert done.returncode == 0, done.stderr
    (record,) = Store(kept / "results").scored("embedded")
    assert record.title == "Theirs"
    trial = json.loads((kept / "results" / "embedded" / _trial(kept, "mosld") / "record.json").read_text())
    assert record.parameters.trainable == trial["size"]["trainable"]
    cut = ("--steps", "10", "--methods", "lora,mosld", "--seeds", "0")
    done = bench(*report, *cut, "--limit", "40", cwd=kept)
    assert done.returncode == 0, done.stderr
    tables = kept / "reports" / "embedded" / "tables"
    assert not (tables / "scored.csv").exists(), "the records are of 40 items a task, the scores of all"
    done = bench(*told, "--limit", "40", cwd=kept)
    assert done.returncode == 0, done.stderr
    done = bench(*report, *cut, "--limit", "40", cwd=kept)
    assert done.returncode == 0, done.stderr
    (row,) = read_csv(tables / "scored.csv")
    means = {line["recipe"]: line["in_domain_mean"] for line in read_csv(tables / "main.csv")}
    assert (row["title"], row["in_domain_mean"]) == ("Theirs", means["mosld"]), "the same adapter on the same items"
