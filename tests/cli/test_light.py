"""Help and listings load nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

HEAVY = {"torch", "ray", "transformers", "peft", "lm_eval", "pandas", "datasets", "scipy", "matplotlib"}


@pytest.mark.parametrize("words", [None, "--help", "run --help", "methods ls", "methods show mosld", "tasks ls"])
def test_what_is_loaded(words: str | None) -> None:
    """``words`` of a command; None: the command line is imported, and no command is run."""
    code = f"""
import sys
from mosld_bench.cli import main
if {words is not None}:
    sys.argv = ["mosld-bench", *{(words or "").split()}]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, stop.code
print(*sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, done.stderr.split()) == (0, []), done.stderr
    assert bool(done.stdout) == (words is not None)


def test_a_report_reads_records_without_torch() -> None:
    """Their methods' versions, too, are told without it."""
    code = """
import sys
from mosld_bench import pipeline
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
workspace = Workspace.find()
study = Study.load(workspace.study_file("smollm2"))
analysis = pipeline.analysed(study, workspace, (), study.plan(workspace))
assert analysis.records and analysis.outdated, "records of version 1 of the mixture, in bfloat16"
print(*sorted({"torch", "ray", "transformers", "peft", "lm_eval"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
