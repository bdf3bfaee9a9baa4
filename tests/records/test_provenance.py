"""Provenance: the state of the checkout, and the command line as a record notes it."""

from __future__ import annotations

import subprocess
from datetime import datetime, timedelta

import pytest

from mosld_bench.records import provenance
from mosld_bench.records.provenance import code_state, command_line, hardware, now, versions


@pytest.mark.parametrize(
    ("words", "noted"),
    [
        (["/usr/bin/mosld-bench", "run", "smollm2"], "mosld-bench run smollm2"),
        (["/src/mosld_bench/__main__.py", "run"], "python -m mosld_bench run"),
        (["mosld-bench", "run", "--data-root", "/home/somebody/data"], "mosld-bench run --data-root data"),
        (["mosld-bench", "run", "--set", "question=Does it run?"], "mosld-bench run --set 'question=Does it run?'"),
    ],
)
def test_the_command_line_can_be_typed_again_and_tells_no_absolute_path(
    words: list[str], noted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", words)
    assert command_line() == noted


def test_without_an_answer_of_git_the_state_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*arguments: object, **options: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert code_state.__wrapped__() == {"commit": None, "dirty": None}


@pytest.mark.parametrize(("changed", "dirty"), [("", False), (" M mosld_bench/cli.py", True), (None, None)])
def test_a_checkout_with_changes_is_dirty(
    changed: str | None, dirty: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"ls-files": "a file", "status": changed, "rev-parse": "c0ffee"}
    monkeypatch.setattr(provenance, "_git", lambda *arguments: answers[arguments[0]])
    assert code_state.__wrapped__() == {"commit": "c0ffee", "dirty": dirty}


def test_versions_are_of_installed_packages() -> None:
    assert {"mosld_bench", "torch", "transformers", "peft", "lm_eval"} <= versions().keys()
    assert all(versions().values())


def test_now_is_in_utc() -> None:
    assert datetime.fromisoformat(now()).utcoffset() == timedelta(0)


@pytest.mark.parametrize("there", [True, False])
def test_the_processor_that_did_the_work_is_noted_with_whether_it_has_bfloat16(
    there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mosld_bench.compat.torch.has_bfloat16", lambda: there)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Example GPU")
    assert hardware("cpu").get("bfloat16") is there
    on_gpu = hardware("cuda:0")
    assert on_gpu["gpu"] == "Example GPU"
    assert "bfloat16" not in on_gpu, "it says nothing of a GPU's numbers"
