"""The command `compare`, as one types it: what it reads, prints and refuses."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mosld_bench.cli.compare import compare
from mosld_bench.cli.console import console
from mosld_bench.records.record import Metric, Record
from mosld_bench.records.store import read_record
from mosld_bench.reporting import stats
from mosld_bench.spec.trial import EvaluateSpec, TrainSpec
from tests.cli.conftest import Command
from tests.conftest import REPOSITORY
from tests.records.test_readme import names_under
from tests.support.synthetic import (
    RECIPES,
    make_record,
    make_records,
    make_study,
    make_trials,
    write_records,
)

Compared = Callable[..., dict[str, Any]]
THREE = ("base", "lora", "mosld")
IN, OUT = ("everyday", "stories", "science"), ("routes",)


@pytest.fixture
def compared(command: Command) -> Compared:
    """The JSON of `mosld-bench compare WORDS`."""

    def run(*words: str) -> dict[str, Any]:
        done = command("compare", *words, "--json")
        assert (done.code, done.err) == (0, "")
        result: dict[str, Any] = json.loads(done.out)
        return result

    return run


@pytest.fixture
def kept(tmp_path: Path, command: Command) -> Path:
    """The folder of the command, with the kept results of the repository in it."""
    (tmp_path / "results").symlink_to(REPOSITORY / "results")
    return tmp_path


def made(root: Path, recipes: Sequence[str] = THREE, *, items: bool = True, **changes: Any) -> Path:
    """The folder of the records of a made-up study."""
    make_records(root, recipes, items=items, **{"in_domain": IN, "out_of_domain": OUT, **changes})
    return root / "results" / "synthetic"


def only(result: dict[str, Any], of: str, metric: str = "acc,none", pair: int = 0) -> dict[str, Any]:
    (score,) = (s for s in result["pairs"][pair]["scores"] if (s["of"], s["metric"]) == (of, metric))
    found: dict[str, Any] = score
    return found


def refused(command: Command, *words: str) -> str:
    """What the command says when it refuses: one sentence or two, no traceback, exit code 2."""
    done = command("compare", *words)
    assert done.code == 2
    assert done.err.startswith("mosld-bench: ")
    assert len(done.err.splitlines()) == 1
    return done.err


# The numbers of the kept records


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("recipe", "points", "p", "freedom"),
    [("lora", (-0.16, -0.87, 0.55), 0.623, 8.7), ("moe-lora", (0.07, -0.64, 0.78), 0.834, 8.0)],
)
def test_two_recipes_of_a_study(
    recipe: str, points: tuple[float, ...], p: float, freedom: float, compared: Compared
) -> None:
    result = compared(recipe, "mosld", "--study", "smollm2", "--setting", "mixture", "--metric", "primary")
    found = only(result, "in_domain")
    assert [100 * found[key] for key in ("difference", "low", "high")] == pytest.approx(points, abs=0.005)
    assert found["p"] == found["adjusted_p"] == pytest.approx(p, abs=0.0005)
    assert found["degrees_of_freedom"] == pytest.approx(freedom, abs=0.05)
    assert 100 * found["detectable"] == pytest.approx(0.98, abs=0.005)
    assert (found["verdict"], found["words"], found["seed_noise"]) == ("equal", "equal within 1 point", "pooled")
    assert found["seeds"] == {"a": [0, 1, 2], "b": [0, 1, 2], "paired": True}
    assert {(task["common"], task["paired"]) for task in found["items"]} == {(500, True)}


@pytest.mark.usefixtures("kept")
def test_what_is_printed(command: Command) -> None:
    done = command("compare", "lora", "mosld", "--study", "smollm2", "--setting", "mixture", "--items", "2")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "Seeds: 0, 1 and 2, paired." in lines
    assert "Items: 500 of each of six tasks, paired." in lines
    assert any(
        line.startswith("Found with a chance of 80 %: a true difference of 0.98 points in-domain") for line in lines
    )
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    first = ["In-domain", "44.3", "44.5", "−0.16", "−0.87 to +0.55", "0.623", "0.623", "8.7", "pooled"]
    assert [*first, "equal within 1 point"] in rows
    headings = [row[0] for row in rows if len(row) == 10 and not any(row[1:])]
    assert headings == ["acc (%)", "acc_norm (%)", "probability of the right option (%)"]
    assert sum(row[0] == "MCTest" for row in rows) >= 3, "by metric, and among the items"
    assert sum(len(row) == 9 for row in rows) == 2, "as many items as are asked for"


@pytest.mark.usefixtures("kept")
def test_two_studies_meet_in_the_rows_of_both(compared: Compared) -> None:
    result = compared("smollm2", "smollm2-budget", "--metric", "primary")
    assert [pair["a"]["recipe"] for pair in result["pairs"]] == ["base", "lora", "mola", "mosld"]
    for pair in result["pairs"]:
        assert {key: pair["a"][key] for key in ("recipe", "budget")} == {
            key: pair["b"][key] for key in ("recipe", "budget")
        }
        assert all(score["identical"] for score in pair["scores"]), "the one study took its trials from the other"
        assert {score["verdict"] for score in pair["scores"]} == {"untested"}
    assert result["items"] == []
    assert [note.split(" has ")[0] for note in result["notes"]] == ["Only smollm2", "Only smollm2-budget"]


@pytest.mark.usefixtures("kept")
def test_a_recipe_meets_the_untrained_model_as_the_report_has_it(compared: Compared) -> None:
    words = ("--study", "smollm2", "--setting", "mixture", "--metric", "primary")
    row, base = compared("lora", "base", *words), compared("base", "lora", *words)
    found, turned = only(row, "in_domain"), only(base, "in_domain")
    assert 100 * found["difference"] == pytest.approx(13.72, abs=0.005)
    assert (found["difference"], found["low"]) == pytest.approx((-turned["difference"], -turned["high"]))
    assert (found["verdict"], turned["verdict"], found["seed_noise"]) == ("better", "worse", "own")
    assert row["pairs"][0]["not_the_same"] == [], "what it is to be trained tells them apart"


@pytest.mark.usefixtures("kept")
def test_two_trials_tell_of_two_models(compared: Compared) -> None:
    folders = [
        f"results/smollm2/{name}"
        for name in ("lora-mixture-lora-r32-s0-dcf0b25e", "mosld-mixture-lora-r32-s0-8967ef2d")
    ]
    found = only(compared(*folders), "openbookqa")
    frames = [pd.read_parquet(REPOSITORY / folder / "items.parquet") for folder in folders]
    ours, theirs = (frame[frame.task == "openbookqa"].sort_values("doc")["score"].to_numpy() for frame in frames)
    exact = stats.alone([float(np.mean(ours - theirs))], [stats.TaskItems((ours - theirs)[None])])
    assert (found["difference"], found["low"], found["p"]) == pytest.approx((exact.mean, exact.low, exact.p))
    assert (found["verdict"], found["words"], found["seed_noise"]) == ("untested", "these models only", "models")


def test_it_takes_seconds_and_no_torch(tmp_path: Path) -> None:
    code = """
import sys
from mosld_bench.cli import main
sys.argv = ["mosld-bench", "compare", "lora", "mosld", "--study", "smollm2"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {"torch", "ray", "transformers", "peft", "lm_eval", "matplotlib", "datasets"}
print(*sorted(heavy & sys.modules.keys()), file=sys.stderr)
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 12, (
        "seconds of a core; two on a free and fast one, seven where another thread shares a slow one"
    )


# Folders, also of another machine


def test_a_copy_on_another_machine_is_the_same(tmp_path: Path, command: Command, compared: Compared) -> None:
    here = made(tmp_path)
    there = shutil.copytree(here, tmp_path / "from elsewhere" / "copied@host")
    result = compared(str(here), str(there))
    assert [(pair["a"]["recipe"], pair["b"]["recipe"]) for pair in result["pairs"]] == [(name, name) for name in THREE]
    for pair in result["pairs"]:
        assert pair["not_the_same"] == []
        assert all(score["identical"] for score in pair["scores"])
    said = command("compare", str(here), str(there)).out
    assert said.count("Every score is the same on every item.") == 3
    assert said.count("The same trial on both sides: ") == 3


def test_rows_of_one_folder_are_compared_over_its_block(tmp_path: Path, compared: Compared) -> None:
    """As those of a study are, but without its file; two rows and three seeds leave two degrees of freedom."""
    folder = shutil.copytree(made(tmp_path), tmp_path / "copied")
    found = only(compared("lora", "mosld", "--study", str(folder)), "in_domain")
    scores = [
        [np.mean([m.value for m in record.metrics if m.primary and m.task in IN]) for record in records]
        for records in (recorded(folder, "lora"), recorded(folder, "mosld"))
    ]
    noise = stats.seed_noise(scores)
    assert noise is not None
    assert found["difference"] == pytest.approx(np.mean(scores[0]) - np.mean(scores[1]))
    assert found["seed_noise"] == "pooled"
    assert found["standard_error"] ** 2 >= 2 * noise.mean_square / 3 * (1 - 1e-9)
    assert only(compared(f"mosld@{folder}", f"lora@{folder}"), "in_domain")["difference"] == -found["difference"]


def recorded(folder: Path, recipe: str) -> list[Record]:
    records = [read_record(path) for path in folder.glob(f"{recipe}-*/record.json")]
    return sorted(records, key=lambda record: record.trial.seed)


def rewritten(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """The items files of a folder with their content changed."""
    for path in folder.glob("*/items.parquet"):
        change(pd.read_parquet(path)).to_parquet(path, index=False)


def test_the_order_of_items_is_of_no_account(tmp_path: Path, compared: Compared) -> None:
    here = made(tmp_path)
    there = shutil.copytree(made(tmp_path / "there", seeds=(0, 1, 2, 3)), tmp_path / "copied")
    before = compared(f"lora@{here}", f"mosld@{there}")
    rewritten(there, lambda frame: frame.sample(frac=1, random_state=3))
    assert compared(f"lora@{here}", f"mosld@{there}") == before


def test_of_a_subset_of_items_the_common_ones_are_compared(
    tmp_path: Path, command: Command, compared: Compared
) -> None:
    here = made(tmp_path)
    there = shutil.copytree(here, tmp_path / "copied")
    cut(there, 4)
    found = compared(f"lora@{here}", f"mosld@{there}")
    score = only(found, "everyday")
    assert score["items"] == [{"task": "everyday", "a": 400, "b": 100, "common": 100, "paired": True}]
    by_seed = []
    for ours, theirs in zip(recorded(here, "lora"), recorded(there, "mosld"), strict=True):
        frames = [
            pd.read_parquet(folder / record.trial_id / "items.parquet").query("task == 'everyday'").set_index("doc")
            for folder, record in ((here, ours), (there, theirs))
        ]
        by_seed.append((frames[0]["score"] - frames[1]["score"]).dropna())
    assert score["difference"] == pytest.approx(np.mean(by_seed))
    expected = stats.alone([one.mean() for one in by_seed], [stats.TaskItems(np.array(by_seed))])
    assert (score["low"], score["high"], score["p"]) == pytest.approx((expected.low, expected.high, expected.p))
    (field,) = found["pairs"][0]["not_the_same"]
    assert (field["field"], field["a"], field["b"]) == ("evaluate.limit", None, 100)
    said = command("compare", f"lora@{here}", f"mosld@{there}").out
    assert "Items: paired are those that both have, the others left out: " in said
    assert "everyday 100 (A 400, B 100)" in said
    assert "Not the same: evaluate.limit none against 100. Other samples of items were scored" in said


def cut(folder: Path, every: int) -> None:
    """The records of a folder as if every fourth item, say, had been asked for: numbers, items, trial and its id."""
    for path in sorted(folder.glob("*/record.json")):
        record, file = read_record(path), path.with_name("items.parquet")
        frame = pd.read_parquet(file)
        frame = frame[frame.doc % every == 0]
        frame.to_parquet(file, index=False)
        metrics = []
        for metric in record.metrics:
            values = frame[frame.task == metric.task][metric.metric]
            metrics.append(metric.model_copy(update={"value": float(values.mean()), "items": len(values)}))
        trial = record.trial.model_copy(update={"evaluate": EvaluateSpec(limit=100)})
        changed = record.model_copy(update={"metrics": tuple(metrics), "trial": trial, "trial_id": trial.id})
        path.write_text(changed.model_dump_json())
        path.parent.rename(folder / trial.id)


@pytest.mark.parametrize("left", [0, 40])
def test_without_enough_common_items_each_side_counts_whole(tmp_path: Path, left: int, compared: Compared) -> None:
    """As two samples of a large evaluation set, which overlap by chance or not at all."""
    here = made(tmp_path)
    there = shutil.copytree(here, tmp_path / "copied")
    rewritten(there, lambda frame: frame.assign(doc_hash=frame.doc_hash.where(frame.doc < left, "other")))
    score = only(compared(f"lora@{here}", f"mosld@{there}"), "everyday")
    assert score["items"] == [{"task": "everyday", "a": 400, "b": 400, "common": left, "paired": False}]
    sides = []
    for folder, recipe in ((here, "lora"), (there, "mosld")):
        frames = [pd.read_parquet(folder / r.trial_id / "items.parquet") for r in recorded(folder, recipe)]
        values = np.array([frame[frame.task == "everyday"]["score"].to_numpy() for frame in frames])
        sides.append(stats.Sample([*values.mean(axis=1)], [stats.TaskItems(values)]))
    expected = stats.between(sides[0], sides[1], same_seeds=True, same_items=[False])
    assert (score["difference"], score["low"], score["p"]) == pytest.approx((expected.mean, expected.low, expected.p))
    paired = only(compared(f"lora@{here}", f"mosld@{shutil.copytree(here, tmp_path / 'again')}"), "everyday")
    assert score["standard_error"] > paired["standard_error"]


def test_other_seeds_are_not_paired(tmp_path: Path, command: Command, compared: Compared) -> None:
    here, there = made(tmp_path), made(tmp_path / "there", seeds=(3, 4))
    score = only(compared(f"lora@{here}", f"lora@{there}"), "everyday")
    assert score["seeds"] == {"a": [0, 1, 2], "b": [3, 4], "paired": False}
    ours, theirs = (
        [next(m.value for m in r.metrics if m.task == "everyday" and m.primary) for r in recorded(folder, "lora")]
        for folder in (here, there)
    )
    assert score["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
    of_seeds = np.var(ours, ddof=1) / 3 + np.var(theirs, ddof=1) / 2
    assert score["standard_error"] ** 2 >= of_seeds * (1 - 1e-9)
    assert (score["seed_noise"], score["items"][0]["paired"]) == ("own", True)
    said = command("compare", f"lora@{here}", f"lora@{there}").out
    assert "Seeds: not paired, since fewer than two are common: 0, 1 and 2 of A, 3 and 4 of B." in said


def test_seeds_without_a_partner_are_left_out_and_said(tmp_path: Path, command: Command, compared: Compared) -> None:
    here, there = made(tmp_path), made(tmp_path / "there", seeds=(1, 2, 7))
    score = only(compared(f"lora@{here}", f"mosld@{there}"), "in_domain")
    assert score["seeds"] == {"a": [1, 2], "b": [1, 2], "paired": True}
    said = command("compare", f"lora@{here}", f"mosld@{there}").out
    assert "Seeds: 1 and 2, paired; left out, without a partner: 0 of A and 7 of B." in said


def test_a_single_seed_borrows_from_its_block_or_tells_of_models(tmp_path: Path, compared: Compared) -> None:
    here = made(tmp_path, parts=({"recipes": ("mola",), "seeds": (0,)}, {"recipes": THREE}), recipes=("mola", *THREE))
    shutil.rmtree(next(here.glob("mola-*-s1-*")))
    shutil.rmtree(next(here.glob("mola-*-s2-*")))
    there = made(tmp_path / "there", ("lora",), seeds=(5, 6))
    borrowed = only(compared(f"mola@{here}", f"lora@{there}"), "in_domain")
    assert (borrowed["seed_noise"], borrowed["seeds"]["a"]) == ("borrowed", [0])
    alone = made(tmp_path / "alone", ("mola",), seeds=(0,))
    models = only(compared(f"mola@{alone}", f"lora@{there}"), "in_domain")
    assert (models["seed_noise"], models["verdict"]) == ("models", "untested")
    assert models["difference"] == pytest.approx(borrowed["difference"])


def test_another_protocol_is_named_field_by_field(tmp_path: Path, command: Command, compared: Compared) -> None:
    here = made(tmp_path)
    there = made(
        tmp_path / "there",
        train=TrainSpec(steps=600, learning_rate=5e-3),
        models=[{"name": "embedded", "revision": "fedcba987654"}],
        in_domain=IN[:2],
        out_of_domain=(*IN[2:], *OUT),
    )
    result = compared(f"lora@{here}", f"mosld@{there}")
    fields = {field["field"]: (field["a"], field["b"]) for field in result["pairs"][0]["not_the_same"]}
    assert fields["train.steps"] == (200, 600)
    assert fields["model.revision"] == ("0123456789ab", "fedcba987654")
    assert fields.keys() == {"train.steps", "model.revision", "in_domain", "out_of_domain"}
    mean = only(result, "in_domain")
    assert [task["task"] for task in mean["items"]] == list(IN[:2])
    assert mean["a"] == pytest.approx(np.mean([only(result, task)["a"] for task in IN[:2]]))
    assert only(result, IN[2])["items"][0]["common"] == 400, "in-domain here and out of domain there: by itself"
    said = command("compare", f"lora@{here}", f"mosld@{there}").out
    assert "Not the same: train.steps 200 against 600. They were trained otherwise: a difference is also one of" in said


def test_the_settings_of_a_recipe_and_what_made_it_are_named(tmp_path: Path, compared: Compared) -> None:
    here = made(tmp_path)
    there = shutil.copytree(here, tmp_path / "copied")
    for path in there.glob("*/record.json"):
        content = json.loads(path.read_text())
        content["meta_info"]["hardware"] |= {"gpu": "Example GPU", "bfloat16": False}
        content["meta_info"]["versions"]["torch"] = "2.11.0"
        del content["meta_info"]["versions"]["peft"]
        content["trial"]["recipe"]["learning_rate_scale"] = 2.0
        content["trial_id"] = "unknown"
        path.write_text(json.dumps(content))
        changed = read_record(path)
        path.write_text(changed.model_copy(update={"trial_id": changed.trial.id}).model_dump_json())
    fields = compared(f"lora@{here}", f"lora@{there}")["pairs"][0]["not_the_same"]
    assert [(field["field"], field["a"], field["b"]) for field in fields] == [
        ("recipe.learning_rate_scale", None, 2.0),
        ("versions.torch", "2.9.1", "2.11.0"),
        ("hardware.bfloat16", True, False),
        ("hardware.gpu", "none", "Example GPU"),
    ]
    others = compared(f"lora@{here}", f"mosld@{there}")["pairs"][0]["not_the_same"]
    assert "recipe.learning_rate_scale" not in {field["field"] for field in others}, "recipes are what is compared"


def test_records_without_items_are_compared_by_their_numbers(
    tmp_path: Path, command: Command, compared: Compared
) -> None:
    here, there = made(tmp_path), made(tmp_path / "there", items=False)
    result = compared(f"lora@{here}", f"mosld@{there}")
    found = only(result, "in_domain")
    assert (found["item_noise"], found["seed_noise"]) == (False, "own")
    assert found["items"][0] == {"task": IN[0], "a": 400, "b": None, "common": None, "paired": False}
    assert "probability" not in {score["metric"] for score in result["pairs"][0]["scores"]}
    assert result["items"] == []
    said = command("compare", f"lora@{here}", f"mosld@{there}").out
    assert "Items: not at hand of every record (no items.parquet) for " in said
    assert "own, no items" in said


def test_a_folder_of_several_protocols_counts_one_and_says_so(tmp_path: Path, compared: Compared) -> None:
    here = made(tmp_path)
    fast = TrainSpec(steps=20, learning_rate=5e-3)
    study = make_study(recipes=("lora",), seeds=(0,), train=fast, in_domain=IN, out_of_domain=OUT)
    trials = make_trials(study, [RECIPES["lora"]], protocol="ffffffff")
    write_records(tmp_path, (make_record(trial, study) for trial in trials), items=True)
    result = compared("lora", "mosld", "--study", str(here))
    assert result["pairs"][0]["a"]["seeds"] == [0, 1, 2]
    (note,) = result["notes"]
    assert "seven records of one protocol count; 1 of one other are left out, which differ in train.steps." in note
    other = here / trials[0].id
    fields = compared(str(other), f"mosld@{here}")["pairs"][0]["not_the_same"]
    assert [field["field"] for field in fields] == ["train.steps"]


def test_where_lower_is_better_a_lower_score_is_better(tmp_path: Path, compared: Compared) -> None:
    study = make_study(recipes=("lora", "mosld"), in_domain=IN, out_of_domain=OUT)
    records = []
    for trial in make_trials(study, [RECIPES[name] for name in study.recipes]):
        record = make_record(trial, study)
        better = trial.recipe.name == "lora"
        metrics = [
            Metric(
                task=task,
                role="in_domain" if task in IN else "out_of_domain",
                metric="word_perplexity,none",
                value=(10.0 if better else 14.0) + 0.01 * trial.seed * (2 if better else -1),
                stderr=None,
                items=400,
                chance=None,
                primary=True,
                higher_is_better=False,
            )
            for task in trial.scored_on
        ]
        records.append(record.model_copy(update={"metrics": tuple(metrics)}))
    write_records(tmp_path, records)
    result = compared("lora", "mosld", "--study", str(tmp_path / "results" / "synthetic"))
    found = only(result, "in_domain", "word_perplexity,none")
    assert found["difference"] < 0
    assert (found["verdict"], found["words"], found["higher_is_better"]) == ("better", "A better", False)
    assert (found["scale"], found["equal_p"]) == ("number", None), "a perplexity has no points to be equal within"


# Options


def test_what_is_compared_can_be_narrowed(tmp_path: Path, compared: Compared) -> None:
    here = str(made(tmp_path, budgets=("60000", "120000"), settings=("mixture", "single"), seeds=(0, 1)))
    words = ("lora", "mosld", "--study", here)
    everything = compared(*words)
    assert [(pair["a"]["setting"], pair["a"]["budget"]) for pair in everything["pairs"]] == [
        ("mixture", "60000"), ("mixture", "120000"), ("single", "60000"), ("single", "120000"),
    ]  # fmt: skip
    narrowed = compared(
        *words, "--setting", "single", "--budget", "120000", "--task", "routes,stories", "--metric", "acc"
    )
    (pair,) = narrowed["pairs"]
    assert (pair["a"]["setting"], pair["a"]["budget"]) == ("single", "120000")
    assert [(score["of"], score["metric"]) for score in pair["scores"]] == [
        ("stories", "acc,none"),
        ("routes", "acc,none"),
    ]
    assert {item["task"] for item in narrowed["items"]} <= {"routes", "stories"}
    assert len(narrowed["items"]) == 10
    assert compared(*words, "--items", "0")["items"] == []
    probability = compared(*words, "--metric", "probability,acc_norm", "--budget", "60000")
    assert {score["metric"] for score in probability["pairs"][0]["scores"]} == {"probability", "acc_norm,none"}


@pytest.mark.usefixtures("kept")
def test_the_margin_decides_what_is_equal(compared: Compared) -> None:
    words = ("lora", "mosld", "--study", "smollm2", "--setting", "mixture", "--metric", "primary")
    verdicts = {m: only(compared(*words, "--margin", m), "in_domain")["words"] for m in ("0.5", "1", "2")}
    assert verdicts == {"0.5": "not told apart", "1": "equal within 1 point", "2": "equal within 2 points"}


def test_the_items_are_those_that_differ_most(tmp_path: Path, compared: Compared) -> None:
    here = made(tmp_path)
    found = compared("lora", "mosld", "--study", str(here), "--items", "5")["items"]
    frames = [
        [pd.read_parquet(here / record.trial_id / "items.parquet") for record in recorded(here, recipe)]
        for recipe in ("lora", "mosld")
    ]
    means = [pd.concat(side).groupby(["task", "doc"])["probability"].mean() for side in frames]
    largest = (means[0] - means[1]).abs().sort_values(ascending=False)
    assert [(item["task"], item["doc"]) for item in found] == list(largest.index[:5])
    first = found[0]
    assert first["a"] == pytest.approx(means[0][first["task"], first["doc"]])
    assert first["b"] == pytest.approx(means[1][first["task"], first["doc"]])
    for side, key in zip(frames, ("a_predictions", "b_predictions"), strict=True):
        rows = [frame[(frame.task == first["task"]) & (frame.doc == first["doc"])] for frame in side]
        assert first[key] == [row["prediction"].item() for row in rows]
    assert (first["target"], first["metric"], first["item"]) == ("0", "probability", str(first["doc"]))


@pytest.mark.usefixtures("kept")
def test_the_page_names_the_keys_of_the_json(compared: Compared) -> None:
    result = compared("lora", "mosld", "--study", "smollm2", "--setting", "mixture", "--items", "1")
    page = (REPOSITORY / "results" / "README.md").read_text(encoding="utf-8")
    section = page.split("\n## Two of them compared\n")[1].split("\n## ")[0]
    table = re.findall(r"^\| (`[^|]+`) \|", section, re.M)
    assert [key for cell in table for key in re.findall("`([^`]+)`", cell)] == list(result["pairs"][0]["scores"][0])
    pair, item = result["pairs"][0], result["items"][0]
    for key in (*result, *result["a"], *pair, *pair["a"], "field", "effect", *item):
        assert f"`{key}`" in section, key
    assert names_under("## items.parquet"), "the page's other tables stay what they are"


@pytest.mark.parametrize("width", [80, 119, 160])
def test_a_table_keeps_its_numbers_whole(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_width", width)
    monkeypatch.chdir(REPOSITORY)
    compare("lora", "mosld", study="smollm2", setting="mixture", items=3)
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert "−0.16" in printed
    assert "−0.87 to +0.55" in printed
    assert max(map(len, (line for line in printed.splitlines() if line[:1] in "┃│" or "−0.16" in line))) <= width
    assert ("pooled" in printed) == (width >= 120), "what explains an interval has room, or is left out"


# What it refuses


def test_names_that_are_not_there_are_told_with_what_is(tmp_path: Path, command: Command) -> None:
    here = str(made(tmp_path))
    assert "no recipe, study or folder named 'lorra'. Did you mean 'lora'" in refused(command, "lorra", "mosld")
    assert "no study or folder of records named 'smollm3'. Did you mean 'smollm2'" in refused(
        command, "lora@smollm3", "lora"
    )
    assert "Known: base, lora, mosld. These have one in" in refused(command, "lora", "mola", "--study", here)
    assert "There is no folder results/nowhere/x." in refused(command, "results/nowhere/x", "lora")
    assert "no finished trial of the study 'embedded'" in refused(command, "lora", "mosld")
    assert "named 'everyda'. Did you mean 'everyday'" in refused(
        command, "lora", "mosld", "--study", here, "--task", "everyda"
    )
    assert "Known: acc, acc,none, acc_norm, acc_norm,none, primary, probability." in refused(
        command, "lora", "mosld", "--study", here, "--metric", "f1"
    )
    assert "has no row of r8; it has mixture, 60,000 parameters" in refused(
        command, "lora", "mosld", "--study", here, "--budget", "r8"
    )
    assert "is not a budget" in refused(command, "lora", "mosld", "--study", here, "--budget", "many")
    for margin in ("0", "-1", "nan", "101"):
        assert "--margin takes points" in refused(command, "lora", "mosld", "--study", here, "--margin", margin)


def test_what_cannot_be_compared_is_told(tmp_path: Path, command: Command) -> None:
    here = made(tmp_path)
    other = made(tmp_path / "other", ("lora",), budgets=("120000", "240000"))
    assert "lora and lora are the same rows of" in refused(command, "lora", "lora", "--study", str(here))
    said = refused(command, f"lora@{here}", f"lora@{other}")
    assert "no block in common" in said
    assert "has mixture, 60,000 parameters; " in said
    assert "have no recipe and block in common" in refused(command, str(here), str(other))
    assert f"lora@{here} is a recipe, and {other} a whole folder of records" in refused(
        command, f"lora@{here}", str(other)
    )
    tasks = made(tmp_path / "other tasks", in_domain=("one", "two"), out_of_domain=())
    assert "were scored on no task in common" in refused(command, f"lora@{here}", f"lora@{tasks}")
    assert "The study 'parameters' counts parameters" in refused(command, "parameters", str(here))
    assert "only count parameters" in refused(command, str(REPOSITORY / "results" / "parameters"), str(here))
    assert "no finished trial of the study 'smollm2' as its file asks" in refused(command, "smollm2", str(here))


def test_a_name_for_two_things_is_asked_back(tmp_path: Path, command: Command) -> None:
    here = made(tmp_path)
    (tmp_path / "reports").unlink()
    (tmp_path / "reports" / "lora").mkdir(parents=True)
    (tmp_path / "reports" / "mine").mkdir()
    for name in ("lora", "mine"):
        shutil.copy(REPOSITORY / "reports" / "smollm2" / "study.yaml", tmp_path / "reports" / name)
    said = refused(command, "lora", "mosld", "--study", str(here))
    assert "'lora' is a recipe and a study." in said
    assert f"Write lora@{here} for the recipe, " in said
    shutil.copytree(here, tmp_path / "mine")
    said = refused(command, "mine", str(here))
    assert "'mine' is a study and a folder of records." in said
    assert f"{tmp_path / 'mine'} for the folder." in said
    assert command("compare", f"lora@{here}", "mosld", "--study", str(tmp_path / "mine")).code == 0


def test_folders_without_records_or_with_damaged_ones_are_told(tmp_path: Path, command: Command) -> None:
    here = made(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "holds no record of a finished trial." in refused(command, str(tmp_path / "empty"), str(here))
    failed = tmp_path / "failed" / "trial"
    failed.mkdir(parents=True)
    (failed / "failure.json").write_text("{}")
    assert "; one trial failed there" in refused(command, str(failed.parent), str(here))
    assert f"such as {tmp_path / 'results' / 'synthetic'}" in refused(command, str(tmp_path / "results"), str(here))
    there = shutil.copytree(here, tmp_path / "damaged")
    record, items = next(there.glob("lora-*/record.json")), next(there.glob("mosld-*-s1-*/items.parquet"))
    items.write_bytes(b"no parquet")
    assert f"{items} holds no items of a trial" in refused(command, f"lora@{here}", f"mosld@{there}")
    record.write_text('{"trial": {}}')
    assert f"{record} is no record of this version" in refused(command, str(there), str(here))
    record.write_bytes(b"\xff\xfe")
    assert f"{record} is no record of this version" in refused(command, str(there), str(here))
