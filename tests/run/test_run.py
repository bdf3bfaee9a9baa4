"""From a study to a report: in this process, on Ray, through the command line, and with what users get wrong."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from pypdf import PdfReader
from rich.console import Console

from mosld_bench import display
from mosld_bench import pipeline as job
from mosld_bench.errors import BenchError, DataError, ModelError, ResourceError
from mosld_bench.inputs import models
from mosld_bench.inputs.models import find, load_config
from mosld_bench.inputs.tasks import TaskLoader, examples, passages, sample, split, training_docs
from mosld_bench.methods.builtin import PeftMethod
from mosld_bench.methods.contract import check_method
from mosld_bench.methods.fit import fit_budget
from mosld_bench.records import provenance
from mosld_bench.records.record import Outcome, Record
from mosld_bench.records.store import Store, load
from mosld_bench.run import plan as planning
from mosld_bench.run import ray_executor as launch
from mosld_bench.run.progress import ProgressDisplay
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import Fit, PlannedTrial
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial import execute as execution
from mosld_bench.trial.execute import Session, WorkerConfig, execute
from tests.conftest import REPOSITORY, bench, items, write_task
from tests.support.models import config

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def parts(root: Path, **overrides: object) -> tuple[Study, list[PlannedTrial], WorkerConfig]:
    study = Study.load(root / "reports" / "tiny" / "study.yaml", overrides)
    workspace = Workspace(root, root)
    config = load_config(study.models[0])
    recipes = load_recipes(workspace.methods)
    jobs = [
        (t, fit_budget(t.recipe, config, t.budget, tolerance=t.tolerance, recipes=recipes))
        for t in study.plan(workspace)
    ]
    return study, jobs, WorkerConfig((str(workspace.tasks),), study.resources, save_adapter=True)


def quiet(jobs: Iterable[PlannedTrial]) -> ProgressDisplay:
    return ProgressDisplay(dict.fromkeys((trial.id for trial, _ in jobs), 0.0), Console(quiet=True))


def test_inline_run_writes_whole_records(tiny: Path) -> None:
    _, jobs, around = parts(tiny)
    outcomes = launch.run_inline(jobs, around, tiny / "results", quiet(jobs))
    assert [o.record.error for o in outcomes] == [None] * 3
    frame = load(tiny / "results", "tiny")
    assert set(frame["recipe"]) == {"base", "lora", "mosld"}
    assert set(frame["metric"]) == {"acc,none"}
    row = frame[(frame["recipe"] == "mosld") & (frame["task"] == "other")].iloc[0]
    assert row["role"] == "out_of_domain"
    assert row["items"] == 20
    assert row["chance"] == pytest.approx(1 / 3)
    made = {o.record.trial.recipe.name: o.record for o in outcomes}["mosld"]
    assert made.size is not None
    assert made.train_info is not None
    assert made.size.trainable == row["trainable_parameters"]
    assert made.train_info.train_items == {"copy": 18, "count": 18}
    assert made.train_info.validation_items == {"copy": 2, "count": 2}
    assert made.train_info.examples == 16
    assert {"commit", "dirty", "versions", "hardware", "started", "seconds"} <= made.meta_info.keys()
    assert 0 < made.meta_info["loading_seconds"] < made.meta_info["seconds"]
    folder = tiny / "results" / "tiny" / made.trial_id
    assert {p.name for p in folder.iterdir()} == {"record.json", "items.parquet", "adapter"}
    assert not list(folder.glob(".*"))
    bare = dataclasses.replace(outcomes[-1], adapter=None)
    Store(tiny / "results").write(bare)
    assert not (tiny / "results" / "tiny" / bare.record.trial_id / "adapter").exists()  # it was not of this record


def test_items_and_adapter_beside_the_record_reproduce_its_score(tiny: Path) -> None:
    """The saved adapter, loaded by PEFT, gives the accuracy and the log-likelihoods that were recorded."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mosld_bench.trial.packed_scoring import score_plain

    _, jobs, around = parts(tiny, recipes=["mosld"], frozen_base=False)
    (outcome,) = launch.run_inline(jobs, around, tiny / "results", quiet(jobs))
    folder = tiny / "results" / "tiny" / outcome.record.trial_id
    found = pd.read_parquet(folder / "items.parquet")
    for metric in outcome.record.metrics:
        assert found[found["task"] == metric.task]["correct"].mean() == pytest.approx(metric.value)
    base = AutoModelForCausalLM.from_pretrained(tiny / "model")
    model = PeftModel.from_pretrained(base, folder / "adapter").eval()
    words = AutoTokenizer.from_pretrained(tiny / "model")
    one = found[found["task"] == "copy"].iloc[3]
    doc = items(20, "abcdefg")[3]
    asked = [(words(f"{doc['question']}?")["input_ids"], words(f" {option}")["input_ids"]) for option in doc["options"]]
    values = [value for value, _ in score_plain(model, asked, 0, 512)]
    assert list(one["logliks"]) == pytest.approx(values, abs=1e-4)
    assert one["item"] == "a3"


def test_overwrite(tiny: Path) -> None:
    _, jobs, around = parts(tiny, recipes=["lora"])
    results = tiny / "results"
    assert job.missing(jobs, results, "never") == jobs
    launch.run_inline(jobs[:1], around, results, quiet(jobs[:1]))
    assert job.missing(jobs, results, "only-missing") == jobs[1:]
    assert job.missing(jobs, results, "always") == jobs
    with pytest.raises(BenchError, match="--overwrite never, but 1 of 2 trials have a record"):
        job.missing(jobs, results, "never")


def test_a_budget_named_after_a_recipe_follows_it(tiny: Path) -> None:
    """A record of another size under the same trial is not taken for the one that is planned now."""
    given = {"recipes": ["lora"], "frozen_base": False, "budgets": ["mosld-r4"]}
    _, jobs, around = parts(tiny, **given)
    launch.run_inline(jobs, around, tiny / "results", quiet(jobs))
    assert job.missing(jobs, tiny / "results", "only-missing") == []
    path = tiny / "methods" / "mosld.yaml"
    path.write_text(path.read_text().replace("experts: [2, 4, 6, 8]", "experts: [2, 4, 8, 8]"))
    _, changed, _ = parts(tiny, **given)
    assert [trial.id for trial, _ in changed] == [trial.id for trial, _ in jobs]
    assert changed[0][1].target != jobs[0][1].target
    assert job.missing(changed, tiny / "results", "only-missing") == changed


def test_same_trial_same_numbers_and_the_base_model_is_loaded_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, jobs, around = parts(tiny)
    loads: list[str] = []
    load_base = models.load_base
    monkeypatch.setattr(models, "load_base", lambda spec, *rest: (loads.append(spec.name), load_base(spec, *rest))[1])
    session = Session(around)
    first = [execute(trial, session, fit).record for trial, fit in jobs]
    again = [execute(trial, session, fit).record for trial, fit in reversed(jobs)][::-1]
    assert len(loads) == 1
    for a, b in zip(first, again, strict=True):
        assert [m.value for m in a.metrics] == [m.value for m in b.metrics]
        assert a.train_info is None or [p.loss for p in a.train_info.curve] == [p.loss for p in b.train_info.curve]


def timeless(value: object) -> object:
    """A record's content with its times and its memory, which are never the same, set to zero."""
    if isinstance(value, dict):
        return {
            key: 0 if key in {"started", "peak_memory_bytes"} or "second" in key else timeless(one)
            for key, one in value.items()
        }
    return [timeless(one) for one in value] if isinstance(value, list) else value


def test_what_a_trial_leaves_does_not_grow_with_the_number_of_trials(tiny: Path) -> None:
    """Alone in its study, and as the last of many after which the process keeps models, tasks and token ids."""
    _, alone, around = parts(tiny, recipes=["mosld"], frozen_base=False)
    _, many, _ = parts(tiny, recipes=["lora", "mosld", "mola"], settings=["single", "mixture"], seeds=[1, 0])
    trial, fit = alone[0]
    last = next(job for job in many if job[0].id == trial.id)
    first = execute(trial, Session(around), fit)
    session = Session(around)
    for job_before in many[:8]:
        execute(job_before[0], session, job_before[1])
    later = execute(last[0], session, last[1])
    assert timeless(later.record.model_dump(mode="json")) == timeless(first.record.model_dump(mode="json"))
    assert later.items is not None
    assert later.items.equals(first.items)
    assert {name: len(content) for name, content in (later.adapter or {}).items()} == {
        name: len(content) for name, content in (first.adapter or {}).items()
    }


def test_the_longest_trials_start_first_and_the_order_is_always_the_same(tiny: Path) -> None:
    """Without prices: what trains nothing last. With them: falling, model by model, and every trial once."""
    study = Study.load(tiny / "reports" / "tiny" / "study.yaml", {"seeds": [0, 1]})
    plan = planning.make(study, Workspace(tiny, tiny))
    ordered = plan.longest_first(plan.jobs)
    assert [trial.recipe.name for trial, _ in ordered] == ["lora"] * 2 + ["mosld"] * 2 + ["base"]
    for task in ("copy", "count", "other"):
        path = tiny / "tasks" / f"{task}.yaml"
        sizes = f"size: {{train: {20 if task == 'copy' else 900}, test: 20, tokens: 9}}"
        path.write_text(path.read_text().replace("kind: toy", f"kind: toy, {sizes}"))
    study = Study.load(
        tiny / "reports" / "tiny" / "study.yaml",
        {"settings": ["single", "mixture"], "train.epochs": 1, "models": [{"name": str(tiny / "model")}]},
    )
    plan = planning.make(study, Workspace(tiny, tiny))
    hours = {trial.id: price.hours or 0 for (trial, _), price in zip(plan.jobs, plan.prices, strict=True) if price}
    ordered = plan.longest_first(plan.jobs)
    found = [hours[trial.id] for trial, _ in ordered]
    assert found == sorted(found, reverse=True) != [hours[trial.id] for trial, _ in plan.jobs]
    assert {trial.id for trial, _ in ordered} == {trial.id for trial, _ in plan.jobs}
    assert plan.longest_first(ordered) == plan.longest_first(plan.jobs)
    assert plan.longest_first(plan.jobs[::3]) == [one for one in ordered if one in plan.jobs[::3]]
    assert plan.hours(plan.jobs[:2]) == {trial.id: hours[trial.id] for trial, _ in plan.jobs[:2]}


def test_a_model_without_a_price_is_planned_and_ordered() -> None:
    """A state-space model has no heads of attention: nothing is known of its memory, and nothing stops."""
    workspace = Workspace.find(REPOSITORY)
    study = Study.load(workspace.study_file("embedded"), {"recipes": ["lora", "full"], "seeds": [0]})
    plan = planning.make(study, workspace)
    other = dataclasses.replace(plan, configs=dict.fromkeys(plan.configs, config("mamba")))
    assert other.prices == [None] * len(plan.jobs)
    assert set(other.hours(plan.jobs).values()) == {0}
    assert {trial.id for trial, _ in other.longest_first(other.jobs)} == {trial.id for trial, _ in plan.jobs}
    assert other.refusals(1) == []
    (said,) = display.plan_sentences(other, 8, 80e9)
    assert said.startswith("No estimate of time and memory")


class Failing(PeftMethod):
    def before_step(self, model: torch.nn.Module) -> None:
        raise RuntimeError("out of luck")


def test_a_failing_trial_leaves_its_traceback_and_no_record(tiny: Path) -> None:
    lora = (tiny / "methods" / "lora.yaml").read_text()
    (tiny / "methods" / "fails.yaml").write_text(lora.replace("method: peft", 'method: "tests.test_run:Failing"'))
    _, jobs, around = parts(tiny, recipes=["fails"], frozen_base=False)
    (outcome,) = launch.run_inline(jobs, around, tiny / "results", quiet(jobs))
    folder = tiny / "results" / "tiny" / outcome.record.trial_id
    assert {p.name for p in folder.iterdir()} == {"failure.json"}
    failure = json.loads((folder / "failure.json").read_text())
    assert failure["status"] == "failed"
    assert "Traceback" in failure["error"]
    assert "out of luck" in failure["error"]
    assert load(tiny / "results").empty


class Ray:
    """Answers at once: the n-th trial ends as ``script`` says, a record's status or an error of Ray."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

    def __init__(self, script: list[str]) -> None:
        self.script, self.hired, self.killed, self.ran_on = iter(script), list[Any](), list[Any](), list[Any]()
        self.asked: dict[object, tuple[Any, Any]] = {}

    def remote(self, worker: type) -> Any:
        return self

    def options(self, **options: Any) -> Any:
        return SimpleNamespace(remote=lambda *around: self.hired.append(self._worker()) or self.hired[-1])

    def _worker(self) -> Any:
        worker = SimpleNamespace(progress=SimpleNamespace(remote=object))
        worker.run = SimpleNamespace(remote=lambda trial, fit: self._ask(worker, trial))
        return worker

    def _ask(self, worker: Any, trial: Any) -> object:
        answer = object()
        self.asked[answer] = worker, trial
        return answer

    def wait(self, asked: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return [one for one in asked if one in self.asked][:num_returns], []

    def get(self, answer: object) -> Outcome:
        worker, trial = self.asked.pop(answer)
        self.ran_on.append(worker)
        status = next(self.script)
        if status == "died":
            raise self.exceptions.RayError(status)
        return Outcome(Record(trial=trial, trial_id=trial.id, status=status, size=Fit.model_construct()))

    def kill(self, worker: Any) -> None:
        self.killed.append(worker)


@pytest.mark.parametrize(
    ("device", "script", "workers"),
    [
        ("cpu", ["failed", "finished", "finished"], 1),
        ("cuda", ["failed", "finished", "finished"], 2),  # the device may be of no use to that process
        ("cpu", ["died", "finished", "finished", "finished"], 2),
        ("cuda", ["died", "died", "finished", "failed", "finished"], 4),
    ],
)
def test_a_worker_that_may_be_spent_is_replaced(tiny: Path, device: str, script: list[str], workers: int) -> None:
    _, jobs, around = parts(tiny)
    ray = Ray(script)
    around = dataclasses.replace(around, device=device)
    outcomes = launch._drive(ray, jobs, around, {"num_cpus": 1}, 1, tiny / "results", quiet(jobs), lambda: None)
    assert len(outcomes) == 3
    assert len(ray.hired) == workers
    assert ray.killed == ray.hired[: workers - 1]
    spent = [worker for worker, status in zip(ray.ran_on, script, strict=True) if status == "died"]
    assert all(worker in ray.killed for worker in spent)


def test_the_end_of_a_clusters_job_is_an_interruption(tiny: Path) -> None:
    """SIGTERM, as a scheduler sends it at a job's time limit, ends in the sentence of Ctrl-C and not in a trace."""
    words = ["run", "tiny", "--methods", "lora", "--root", str(tiny), "--cpus", "1"]
    long = subprocess.Popen(
        [sys.executable, "-m", "mosld_bench", *words, "--set", "train.steps=1000000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tiny,
    )  # fmt: skip
    assert long.stdout is not None
    for line in long.stdout:
        if re.search(r"lora-mixture-\S+: training", line):
            break
    long.send_signal(signal.SIGTERM)
    out, err = long.communicate(timeout=60)
    assert long.returncode == 130
    assert err.strip() == "mosld-bench: interrupted; finished trials are kept, the same command runs the rest."
    assert "report:" not in out


def test_ray_gives_the_same_numbers_and_survives_a_dead_worker(tiny: Path) -> None:
    """Two workers; a plug-in kills its process at the first try, and the trial is tried again on a new worker."""
    (tiny / "kamikaze.py").write_text(
        "import os, pathlib\n"
        "from mosld_bench.methods.builtin import PeftMethod\n"
        "from mosld_bench.methods.registry import register\n"
        "FLAG = pathlib.Path(__file__).with_suffix('.died')\n"
        "@register('kamikaze')\n"
        "class Kamikaze(PeftMethod):\n"
        "    def before_step(self, model):\n"
        "        if not FLAG.exists():\n"
        "            FLAG.touch()\n"
        "            os._exit(1)\n"
    )
    recipe = (tiny / "methods" / "lora.yaml").read_text().replace("method: peft", "method: kamikaze")
    (tiny / "methods" / "dies.yaml").write_text(recipe)
    done = bench(
        "run", "tiny", "--methods", "lora,dies", "--plugin", "kamikaze", "--root", str(tiny), "--cpus", "2",
        cwd=tiny, PYTHONPATH=str(tiny),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert "its worker died" in done.stdout
    assert "report:" in done.stdout
    frame = load(tiny / "results", "tiny").set_index(["recipe", "task"])["value"]
    assert frame.loc["dies"].to_dict() == frame.loc["lora"].to_dict()
    _, jobs, around = parts(tiny, recipes=["lora"], frozen_base=False)
    inline = execute(jobs[0][0], Session(around), jobs[0][1]).record
    assert {m.task: m.value for m in inline.metrics} == frame.loc["lora"].to_dict()
    again = bench("run", "tiny", "--methods", "lora,dies", "--plugin", "kamikaze", "--root", str(tiny), cwd=tiny,
                  PYTHONPATH=str(tiny))  # fmt: skip
    assert "3 recorded, 0 to run" in again.stdout
    text = "".join(page.extract_text() for page in PdfReader(tiny / "reports" / "tiny" / "report.pdf").pages)
    assert "LoRA" in text
    main = pd.read_csv(tiny / "reports" / "tiny" / "tables" / "main.csv")
    assert list(main.columns) == [
        "recipe", "setting", "budget", "trainable_parameters", "in_domain_mean", "in_domain_sd",
        "out_of_domain_mean", "out_of_domain_sd", "seeds", "copy", "count", "other",
    ]  # fmt: skip
    assert list(main["recipe"]) == ["base", "lora", "dies"]
    assert main.set_index("recipe").loc["lora", "copy"] == pytest.approx(frame.loc["lora", "copy"])


def test_single_setting_and_report_command(tiny: Path) -> None:
    """`report` is of the study as its file says; the options of a run make that run's report again."""
    root, part = ("--root", str(tiny)), ("--settings", "single", "--methods", "lora")
    csv, pdf = tiny / "reports" / "tiny" / "tables" / "main.csv", tiny / "reports" / "tiny" / "report.pdf"
    done = bench("run", "tiny", "--executor", "inline", *part, *root)
    assert done.returncode == 0, done.stderr
    of_run = csv.read_text()
    single = pd.read_csv(csv).set_index(["recipe", "setting"]).loc[("lora", "single")]
    assert single["in_domain_mean"] == pytest.approx((single["copy"] + single["count"]) / 2, abs=1e-8)
    pdf.unlink()
    again = bench("report", "tiny", *root)
    assert again.returncode == 0, again.stderr
    assert pdf.is_file()
    declared = pd.read_csv(csv).set_index(["recipe", "setting"])["in_domain_mean"]
    assert declared.isna()["lora", "mixture"]
    assert declared["lora", "single"] == single["in_domain_mean"]
    assert bench("report", "tiny", *part, *root).returncode == 0
    assert csv.read_text() == of_run


def test_plan_prints_counts_and_starts_nothing(tiny: Path) -> None:
    done = bench("plan", "tiny", "--json", "--budget", "6k,9k", "--seeds", "0,1", "--root", str(tiny))
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert len(plan["trials"]) == 1 + 2 * 2 * 2
    for one in plan["trials"][1:]:
        assert one["residual"] == pytest.approx((one["trainable"] - one["target"]) / one["target"])
    assert not (tiny / "results").exists()


WRONG = {
    "recipe": (["--methods", "mosldd"], "no recipe named 'mosldd'. Did you mean 'mosld'"),
    "study": (["tinny"], "no study named 'tinny'. Did you mean 'tiny'"),
    "task": (["--tasks", "copi"], "no task named 'copi'"),
    "key": (["--set", "train.batchsize=3"], "Did you mean 'batch_size'"),
    "budget": (["--budget", "10"], "nearest reachable counts are"),
    "budget word": (["--budget", "much"], "'much' is not a budget"),
    "top-k": (["--methods", "greedy"], "top_k is 9"),
    "role": (["--tasks", "other", "--out-of-domain", ""], "has no training_split"),
    "gpus": (["--gpus", "64"], "--gpus 64 was asked for, but this machine has"),
    "model": (["--model", "./hollow"], "has no weights"),
    "pickle": (["--model", "./pickled"], "pickles are not read"),
    "no network": (["--model", "some/model"], "mosld-bench fetch"),
    "data": (["--tasks", "void"], "is empty"),
    "executor": (["--executor", "rai"], "Did you mean 'ray'"),
    "seeds": (["--seeds", "a,b"], "--seeds takes whole numbers"),
    "cores": (["--cpus", "0"], "--cpus takes 1 or more"),
    "cores a trial": (["--cpus-per-trial", "-1"], "resources.cpus_per_trial: Input should be greater than 0"),
    "share of a GPU": (["--gpus-per-trial", "0"], "resources.gpus_per_trial: Input should be greater than 0"),
    "plug-in": (["--plugin", "nope_nope"], "cannot be imported"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_bad_input_is_one_sentence_and_nothing_half_written(
    tiny: Path, case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    from mosld_bench.cli.app import app as cli

    words, said = WRONG[case]
    (tiny / "methods" / "greedy.yaml").write_text("include: mosld.yaml\ntitle: Greedy\nparams: {top_k: 9}\n")
    write_task(tiny / "tasks", "void", [])
    for name, weights in (("hollow", None), ("pickled", "pytorch_model.bin")):
        (tiny / name).mkdir()
        (tiny / name / "config.json").write_text((tiny / "model" / "config.json").read_text())
        if weights:
            torch.save({}, tiny / name / weights)
    monkeypatch.chdir(tiny)
    study = [] if case == "study" else ["tiny"]
    monkeypatch.setattr(sys, "argv", ["mosld-bench", "run", *study, *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2, error
    assert said in error
    assert "Traceback" not in error
    assert not (tiny / "results").exists()
    assert not (tiny / "reports" / "tiny" / "report.pdf").exists()


def test_an_outside_method_by_plugin_and_by_entry_point(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = REPOSITORY / "tests" / "plugin"
    (tiny / "methods" / "scale.yaml").write_text("title: Scale\nmethod: scale\nparams: {target_modules: [q_proj]}\n")
    root = ("--root", str(tiny))
    by_module = bench("methods", "check", "scale", "--plugin", "bench_scale", *root, PYTHONPATH=str(plugin))
    assert by_module.returncode == 2  # its weights are not a PEFT adapter: the contract says so
    assert "save_pretrained" in by_module.stderr
    run = bench("run", "tiny", "--methods", "scale", "--budget", "native", "--plugin", "bench_scale", "--executor",
                "inline", *root, PYTHONPATH=str(plugin))  # fmt: skip
    assert run.returncode == 0, run.stderr
    trained = load(tiny / "results").set_index("recipe").loc["scale", "trainable_parameters"].iloc[0]
    assert trained == 4 * 32
    # What pip writes for an installed package: a dist-info folder with the entry point.
    info = tiny / "site" / "bench_scale-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-scale\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[mosld_bench.methods]\nscale = bench_scale:ScaleMethod\n")
    listed = bench("methods", "ls", *root, PYTHONPATH=f"{plugin}:{tiny / 'site'}")
    assert "bench_scale:ScaleMethod" in listed.stdout


@pytest.mark.parametrize(
    "name",
    ["lora", "prefix-tuning", "dora", "moe-lora", "sira", "mola", "mixlora", "hydralora", "mosl", "mosld", "full"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_recipe_keeps_the_contract(name: str) -> None:
    from mosld_bench.methods import registry
    from mosld_bench.spec.recipe import load_recipes

    recipe = load_recipes(REPOSITORY / "methods")[name]
    assert len(check_method(registry.get(recipe.method), recipe.params, knob=recipe.knob)) == 8


def test_more_gpus_than_there_are_is_an_error_at_once() -> None:
    with pytest.raises(ResourceError, match=r"--gpus 512 was asked for, but this machine has \d+ CUDA device"):
        launch.check_gpus(512)


def test_slots() -> None:
    assert launch.slots_of(8, 64, launch.Pool(), 100) == 8
    assert launch.slots_of(2, 64, launch.Pool(gpus_per_trial=0.25), 100) == 8
    assert launch.slots_of(0, 4, launch.Pool(cpus_per_trial=2), 100) == 2
    assert launch.slots_of(0, 4, launch.Pool(), 3) == 3
    assert launch.slots_of(0, 1, launch.Pool(cpus_per_trial=2), 3) == 1


def test_model_folders_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        find(str(tmp_path))
    with pytest.raises(ModelError, match="no model folder"):
        find("./nowhere")
    assert find("some/model") == "some/model"


def test_a_root_needs_what_goes_in(tmp_path: Path) -> None:
    for name in ("methods", "tasks"):
        with pytest.raises(BenchError, match=f"--root .* has no '{name}' folder"):
            Workspace.find(tmp_path)
        (tmp_path / name).mkdir()
    assert Workspace.find(tmp_path) == Workspace(tmp_path, tmp_path)


def test_the_frozen_base_alone_makes_a_report(tiny: Path) -> None:
    done = bench("run", "tiny", "--methods", "base", "--executor", "inline", "--root", str(tiny))
    assert done.returncode == 0, done.stderr
    text = "".join(page.extract_text() for page in PdfReader(tiny / "reports" / "tiny" / "report.pdf").pages)
    assert "Frozen base" in text


def test_a_task_that_is_held_out_whole_is_refused(tiny: Path) -> None:
    """It would be drawn from for ever."""
    _, jobs, around = parts(tiny, recipes=["lora"], frozen_base=False)
    trial, fit = jobs[0]
    assert trial.train is not None
    spec = trial.train.model_copy(update={"validation_fraction": 0.99})
    made = execute(trial.model_copy(update={"train": spec}), Session(around), fit).record
    assert made.status == "failed"
    assert "Of the 20 training items of the task 'copy' all are held out for validation" in (made.error or "")


def test_held_out_items_and_samples_are_fixed(tiny: Path) -> None:
    loader = TaskLoader([tiny / "tasks"])
    task = loader.get("copy")
    found = examples(task)
    assert (found[0].context, found[0].answer) == ("ab0?", " a")
    train, held = split(20, 0.1, 0, "copy")
    assert (len(train), len(held)) == (18, 2)
    assert sorted(train + held) == list(range(20))
    assert split(20, 0.1, 0, "copy") == (train, held)
    assert split(20, 0.1, 1, "copy") != (train, held)
    assert sample(task, None, 0) == list(range(20))
    assert sample(task, 5, 0) == sample(task, 5, 0) != sample(task, 5, 1)


def test_items_of_one_passage_are_held_out_together(tiny: Path) -> None:
    """Two of ten stories with four questions each: none of them is trained on."""
    stories = [i // 4 for i in range(40)]
    train, held = split(40, 0.2, 0, "copy", stories)
    assert (len(train), len(held)) == (32, 8)
    assert {stories[i] for i in train}.isdisjoint(stories[i] for i in held)
    assert train == sorted(train)
    assert held != sorted(held)  # so that the first few are a sample of all
    path = tiny / "tasks" / "copy.yaml"
    digest = TaskFiles.scan((tiny / "tasks",)).digest("copy")
    path.write_text(path.read_text().replace("metadata: {", "metadata: {group: question, "))
    task = TaskLoader([tiny / "tasks"]).get("copy")
    assert passages(task, [1, 0]) == [training_docs(task)[i]["question"] for i in (1, 0)]
    files = TaskFiles.scan((tiny / "tasks",))
    assert files.digest("copy") != digest  # other items are trained on
    path.write_text(path.read_text().replace("group: question", "group: story"))
    with pytest.raises(DataError, match=r"groups its items by 'story' .* only the columns id, question"):
        passages(TaskLoader([tiny / "tasks"]).get("copy"))


def test_a_trial_that_another_study_has_is_taken_and_not_run(tiny: Path) -> None:
    _, jobs, around = parts(tiny, recipes=["lora"])
    first = launch.run_inline(jobs, around, tiny / "results", quiet(jobs))
    (tiny / "reports" / "more").mkdir()
    (tiny / "reports" / "more" / "study.yaml").write_text("include: ../tiny/study.yaml\nquestion: And more?\n")
    root, flags = ("--root", str(tiny), "--executor", "inline"), ("--methods", "lora,mosld")
    done = bench("run", "more", *flags, *root)
    assert done.returncode == 0, done.stderr
    assert "more: 3 trials, 2 recorded, 2 of them taken from tiny, 1 to run" in done.stdout
    made = {one.trial_id: one for one in Store(tiny / "results").records("more")}
    for outcome in first:
        one = made[outcome.record.trial_id]
        assert (one.trial.study, one.meta_info.pop("taken_from")) == ("more", "tiny")
        changed = one.trial.model_copy(update={"study": "tiny"})
        assert one.model_copy(update={"trial": changed}) == outcome.record
        names = [{p.name for p in (tiny / "results" / s / one.trial_id).iterdir()} for s in ("tiny", "more")]
        assert names[0] == names[1] >= {"record.json", "items.parquet"}
    text = "".join(page.extract_text() for page in PdfReader(tiny / "reports" / "more" / "report.pdf").pages)
    assert "Taken from other studies, which have the same trials: two records of tiny." in " ".join(text.split())
    assert "3 trials, 3 recorded, 0 to run" in bench("run", "more", *flags, *root).stdout
    broken = tiny / "results" / "broken" / first[0].record.trial_id / "record.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    trial, fit = jobs[0]
    found = [one.trial.study for one in Store(tiny / "results").elsewhere(PlannedTrial(trial, fit))]
    assert found == ["more"]  # what cannot be read is left out


def test_records_of_other_weights_are_not_added_to(tiny: Path) -> None:
    _, jobs, around = parts(tiny, recipes=["lora"])
    launch.run_inline(jobs[:1], around, tiny / "results", quiet(jobs[:1]))
    name = jobs[0][0].model.name
    same = models.weights_source(jobs[0][0].model)
    assert job.missing(jobs, tiny / "results", "only-missing", {name: same}) == jobs[1:]
    other = {"source": "elsewhere", "revision": "main"}
    with pytest.raises(BenchError, match=r"made with other weights of .* than are here now \(source elsewhere"):
        job.missing(jobs, tiny / "results", "only-missing", {name: other})
    assert job.missing(jobs, tiny / "results", "always", {name: other}) == jobs
    more = [(trial.model_copy(update={"study": "more"}), fit) for trial, fit in jobs]
    assert job._take(more, tiny / "results", {name: other}) == (more, {})
    assert job._take(more, tiny / "results", {name: same}) == (more[1:], {"tiny": 1})


def test_a_record_names_the_code_that_its_process_loaded(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([{"commit": "first", "dirty": False}])
    monkeypatch.setattr(provenance, "code_state", cache(lambda: next(states)))
    monkeypatch.setattr(execution, "code_state", provenance.code_state)
    Session(parts(tiny)[2])
    assert provenance.meta_info("now", 1.0, "cpu", None)["commit"] == "first"
    monkeypatch.undo()
    monkeypatch.setattr(provenance, "_git", lambda *words: None if words[0] == "status" else "c0ffee")
    assert provenance.code_state.__wrapped__() == {"commit": "c0ffee", "dirty": None}  # no answer is not "clean"


def test_general_data_and_capped_tasks_are_fixed_samples_that_nest(tiny: Path) -> None:
    _, jobs, around = parts(
        tiny,
        recipes=["lora"],
        frozen_base=False,
        in_domain=["copy"],
        general={"task": "count", "items": [3, 7]},
        **{"train.task_items": 10},
    )
    session = Session(around)
    small, large = [execute(trial, session, fit).record for trial, fit in jobs]
    assert small.train_info is not None
    assert large.train_info is not None
    assert small.train_info.train_items == {"copy": 9, "count": 3}
    assert large.train_info.train_items == {"copy": 9, "count": 7}
    assert small.train_info.validation_items == {"copy": 1}
    assert {metric.task for metric in small.metrics} == {"copy", "other"}
    spec = jobs[0][0].train
    tokenizer = session.model(jobs[0][0].model, "float32")[1]
    three, seven = (session.general(trial.general, spec, tokenizer) for trial, _ in jobs)
    assert [item.ids for item in three if item.ids not in [other.ids for other in seven]] == []


def test_overlap_command_and_report_tell_a_planted_leak(tiny: Path) -> None:
    """Four test items of a task that trains nothing are put, word for word, into a training set."""
    words = [f"w{i} " * 3 + " ".join(f"word{i}x{j}" for j in range(14)) for i in range(20)]
    leak = [{"id": str(i), "question": text, "options": ["yes", "no"], "answer": 0} for i, text in enumerate(words)]
    write_task(tiny / "tasks", "other", leak, trains=False)
    write_task(tiny / "tasks", "copy", [*items(20, "abcdefg"), *leak[:4]])
    done = bench("run", "tiny", "--methods", "lora", "--executor", "inline", "--root", str(tiny))
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(tiny / "reports" / "tiny" / "tables" / "overlap.csv").set_index(["train", "evaluated"])
    assert (found.loc[("copy", "other"), "shared"], found.loc[("copy", "other"), "items"]) == (4, 20)
    assert found.loc[("count", "other"), "shared"] == 0
    said = bench("tasks", "overlap", "tiny", "--root", str(tiny))
    assert said.returncode == 0, said.stderr
    assert "20.00%" in said.stdout


def test_with_gpus_and_without_a_study_the_paper_is_run() -> None:
    done = bench("run", "--methods", "all", "--gpus", "8", "--dry-run", cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert "paper: 400 trials on NousResearch/Llama-2-7b-hf" in done.stdout
    assert "hours on 8 GPUs" in done.stdout
    refused = bench("plan", "paper", "--methods", "full,lora", "--gpu-memory", "40", cwd=REPOSITORY)
    assert "Refused: full on NousResearch/Llama-2-7b-hf needs about 72 GB" in refused.stdout
    assert "Refused: lora" not in refused.stdout


def test_a_built_in_generation_task_trains_and_is_scored_by_the_same_way(tiny: Path, mirror: Path) -> None:
    """gsm8k as lm-eval ships it: found by name, read from the mirror, answers generated."""
    done = bench(
        "run", "tiny", "--methods", "mosld", "--tasks", "gsm8k", "--out-of-domain", "other", "--limit", "2",
        "--set", "train.max_length=200", "--data-root", str(mirror), "--executor", "inline", "--root", str(tiny),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    frame = load(tiny / "results").set_index(["recipe", "task", "metric"])
    row = frame.loc[("mosld", "gsm8k", "exact_match,strict-match")]
    assert row["primary"]
    assert row["record"].train_info.train_items == {"gsm8k": 6726}  # nine tenths of 7,473


def test_a_missing_mirror_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'allenai/openbookqa' of the task 'openbookqa' is not below --data-root"):
        TaskLoader([REPOSITORY / "tasks"], tmp_path).get("openbookqa")
