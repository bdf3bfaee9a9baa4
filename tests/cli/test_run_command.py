"""The command `run` and those around it, as one types them: what they print, leave and refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from pypdf import PdfReader

from mosld_bench.errors import BenchError
from mosld_bench.records.store import Store
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY, bench, items, write_task
from tests.reporting.reading import read_csv

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_single_setting_and_report_command(tiny: Path) -> None:
    """`report` is of the trials that are asked for, and of no others: the study's, or those of its options."""
    root, part = ("--root", str(tiny)), ("--settings", "single", "--methods", "lora")
    table, pdf = tiny / "reports" / "tiny" / "tables" / "main.csv", tiny / "reports" / "tiny" / "report.pdf"

    def rows() -> dict[tuple[str, str], dict[str, str]]:
        return {(row["recipe"], row["setting"]): row for row in read_csv(table)}

    done = bench("run", "tiny", "--executor", "inline", *part, *root)
    assert done.returncode == 0, done.stderr
    text_of_run, single = table.read_text(), rows()["lora", "single"]
    mean = (float(single["copy"]) + float(single["count"])) / 2
    assert float(single["in_domain_mean"]) == pytest.approx(mean, abs=1e-8)
    pdf.unlink()
    again = bench("report", "tiny", "--quiet", *root)
    assert (again.returncode, again.stdout, again.stderr) == (0, f"{pdf}\n", "")
    assert pdf.is_file()
    declared = {key: row["in_domain_mean"] for key, row in rows().items()}
    assert declared["lora", "mixture"] == ""
    assert ("lora", "single") not in declared, "recorded, but not asked for"
    beside = bench("report", "tiny", *part, "--to", str(tiny / "elsewhere"), "--json", *root)
    written = json.loads(beside.stdout)
    assert written["report"] == f"{tiny}/elsewhere/report.pdf"
    assert f"{tiny}/elsewhere/tables/main.csv" in written["tables"]
    assert (tiny / "elsewhere" / "tables" / "main.csv").read_text() == text_of_run
    assert rows().keys() == declared.keys(), "the study's own report stays"
    in_place = bench("report", "tiny", *part, *root)
    assert "It is of three trials that the options ask for, and stands where that of the whole study does" in (
        in_place.stdout
    )
    assert table.read_text() == text_of_run
    assert (
        "--save-adapters: two recorded trials left no adapter"
        in bench("run", "tiny", "--executor", "inline", "--save-adapters", *part, *root).stdout
    )
    named = bench("run", "tiny", "--executor", "inline", "--name", "mine", *part, *root)
    assert "taken from tiny" in named.stdout
    assert (tiny / "reports" / "mine" / "tables" / "main.csv").read_text() == text_of_run


def test_plan_prints_counts_and_starts_nothing(tiny: Path) -> None:
    done = bench("plan", "tiny", "--json", "--budget", "6k,9k", "--seeds", "0,1", "--root", str(tiny))
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert len(plan["trials"]) == 1 + 2 * 2 * 2
    for trial in plan["trials"][1:]:
        assert trial["residual"] == pytest.approx((trial["trainable"] - trial["target"]) / trial["target"])
    assert not (tiny / "results").exists()


WRONG = {
    "recipe": (["--methods", "mosldd"], "no recipe named 'mosldd'. Did you mean 'mosld'"),
    "study": (["tinny"], "no study named 'tinny'. Did you mean 'tiny'"),
    "task": (["--tasks", "copi"], "no task named 'copi'"),
    "key": (["--set", "train.batchsize=3"], "Did you mean 'batch_size'"),
    "budget": (["--budget", "10"], "nearest reachable"),
    "budget word": (["--budget", "much"], "'much' is not a budget"),
    "top-k": (["--methods", "greedy"], "top_k is 9"),
    "role": (["--tasks", "other", "--out-of-domain", ""], "has no training_split"),
    "gpus": (["--gpus", "64"], "--gpus 64 was asked for, but this machine has"),
    "model": (["--model", "./hollow"], "has no weights"),
    "pickle": (["--model", "./pickled"], "pickles are not read"),
    "no network": (["--model", "some/model"], "mosld-bench fetch"),
    "data": (["--tasks", "void"], "is empty"),
    "items": (["--tasks", "late"], "late, train: in 1 of 12 items doc_to_target (answer) gives a number below 0"),
    "answers": (["--tasks", "writes"], "Did you mean 'repetition_penalty'"),
    "executor": (["--executor", "rai"], "Did you mean 'ray'"),
    "seeds": (["--seeds", "a,b"], "--seeds takes whole numbers"),
    "cores": (["--cpus", "0"], "--cpus takes 1 or more"),
    "cores a trial": (["--cpus-per-trial", "-1"], "resources.cpus_per_trial: Input should be greater than 0"),
    "share of a GPU": (["--gpus-per-trial", "0"], "resources.gpus_per_trial: Input should be greater than 0"),
    "one GPU and a half": (
        ["--gpus-per-trial", "1.5"],
        "resources.gpus_per_trial: above 1 it has to be a whole number",
    ),
    "plug-in": (["--plugin", "nope_nope"], "cannot be imported"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_bad_input_is_one_sentence_and_nothing_half_written(
    tiny: Path, case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mosld_bench import cli

    words, message = WRONG[case]
    (tiny / "methods" / "greedy.yaml").write_text("include: mosld.yaml\ntitle: Greedy\nparams: {top_k: 9}\n")
    write_task(tiny / "tasks", "void", [])
    (tiny / "tasks" / "writes.yaml").write_text(
        "include: copy.yaml\ntask: writes\noutput_type: generate_until\ndoc_to_choice: null\n"
        "doc_to_target: question\ngeneration_kwargs: {repetition_penalti: 2}\nmetric_list: [{metric: exact_match}]\n"
    )
    write_task(tiny / "tasks", "late", [*items(11, "abc"), {**items(1, "d")[0], "answer": -1}])
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
    assert message in error
    assert "Traceback" not in error
    assert not (tiny / "results").exists()
    assert not (tiny / "reports" / "tiny" / "report.pdf").exists()


def test_an_outside_method_by_plugin_and_by_entry_point(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = REPOSITORY / "tests" / "plugin"
    (tiny / "methods" / "scale.yaml").write_text("title: Scale\nmethod: scale\nparams: {target_modules: [q_proj]}\n")
    root, path = ("--root", str(tiny)), f"{plugin}:{REPOSITORY}"
    by_module = bench("methods", "check", "scale", "--plugin", "bench_scale", *root, PYTHONPATH=path)
    assert (by_module.returncode, by_module.stderr) == (0, ""), by_module.stdout
    assert by_module.stdout.splitlines()[-1] == "All 13 checks passed."
    run = bench("run", "tiny", "--methods", "scale", "--budget", "native", "--plugin", "bench_scale", "--executor",
                "inline", *root, PYTHONPATH=path)  # fmt: skip
    assert run.returncode == 0, run.stderr
    sizes = {record.trial.recipe.name: record.size for record in Store(tiny / "results").records()}
    assert (size := sizes["scale"]) is not None
    assert size.trainable == 4 * 32
    # What pip writes for an installed package: a dist-info folder with the entry point.
    info = tiny / "site" / "bench_scale-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-scale\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[mosld_bench.methods]\nscale = bench_scale:ScaleMethod\n")
    listed = bench("methods", "ls", *root, PYTHONPATH=f"{plugin}:{tiny / 'site'}:{REPOSITORY}")
    assert "bench_scale:ScaleMethod" in listed.stdout


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


def test_overlap_command_and_report_tell_a_planted_leak(tiny: Path) -> None:
    """Four test items of a task that trains nothing are put, word for word, into a training set."""
    words = [f"w{i} " * 3 + " ".join(f"word{i}x{j}" for j in range(14)) for i in range(20)]
    leak = [{"id": str(i), "question": text, "options": ["yes", "no"], "answer": 0} for i, text in enumerate(words)]
    write_task(tiny / "tasks", "other", leak, trains=False)
    write_task(tiny / "tasks", "copy", [*items(20, "abcdefg"), *leak[:4]])
    done = bench("run", "tiny", "--methods", "lora", "--executor", "inline", "--root", str(tiny))
    assert done.returncode == 0, done.stderr
    table = read_csv(tiny / "reports" / "tiny" / "tables" / "overlap.csv")
    shared = {(row["train"], row["evaluated"]): (row["shared"], row["items"]) for row in table}
    assert shared["copy", "other"] == ("4", "20")
    assert shared["count", "other"] == ("0", "20")
    printed = bench("tasks", "overlap", "tiny", "--root", str(tiny))
    assert printed.returncode == 0, printed.stderr
    assert "20.00%" in printed.stdout


def test_with_gpus_and_without_a_study_the_paper_is_run() -> None:
    done = bench("run", "--methods", "all", "--gpus", "8", "--dry-run", cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert "paper: 400 trials on NousResearch/Llama-2-7b-hf" in done.stdout
    assert "hours on 8 GPUs" in done.stdout
    refused = bench("plan", "paper", "--methods", "full,lora", "--gpu-memory", "40", cwd=REPOSITORY)
    assert "Refused: full on NousResearch/Llama-2-7b-hf needs about 72 GB" in refused.stdout
    assert "Refused: lora" not in refused.stdout


def test_a_built_in_generation_task_trains_and_is_scored_by_the_same_way(
    tiny: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gsm8k as lm-eval ships it: found by name, read from the mirror, answers generated.

    In this process, which reads lm-eval's index of tasks once for all tests.
    """
    from mosld_bench import cli

    words = [
        "run", "tiny", "--methods", "mosld", "--tasks", "gsm8k", "--out-of-domain", "other", "--limit", "2",
        "--set", "train.max_length=200", "--set", "train.task_items=200",
        "--data-root", str(mirror), "--executor", "inline", "--root", str(tiny),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["mosld-bench", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    (record,) = [record for record in Store(tiny / "results").records() if record.trial.recipe.name == "mosld"]
    (metric,) = [metric for metric in record.metrics if metric.metric == "exact_match,strict-match"]
    assert (metric.task, metric.primary) == ("gsm8k", True)
    assert record.train_info is not None
    assert record.train_info.train_items == {"gsm8k": 180}  # nine tenths of what is drawn
