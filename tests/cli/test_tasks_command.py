"""`mosld-bench tasks check`: what it prints, and its exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mosld_bench import cli, display
from mosld_bench.inputs.audit import Checked, Problem
from tests.cli.test_tables import printed
from tests.conftest import items, write_task


def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    monkeypatch.setattr(sys, "argv", ["mosld-bench", "tasks", "check", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    output = capsys.readouterr()
    return int(stop.value.code or 0), output.out, output.err


def test_clean_tasks_and_bad_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOSLD_BENCH_CACHE", str(tmp_path / "cache"))
    write_task(tmp_path / "tasks", "clean", [{**row, "answer": i % 2} for i, row in enumerate(items(12, "abcdefg"))])
    write_task(tmp_path / "tasks", "bad", [*items(11, "abcdefg"), {**items(1, "x")[0], "answer": 3}])
    folder = ("--include-path", str(tmp_path / "tasks"))
    code, text, error = check(monkeypatch, capsys, "clean", *folder)
    assert (code, "refused:" in text, "clean" in text) == (0, False, True), error
    code, text, _ = check(monkeypatch, capsys, "clean", "bad", *folder, "--model", "embedded")
    assert code == 2
    expected = "refused: bad, test: in 1 of 12 items doc_to_target (answer) gives the number of an option that is not"
    assert expected in " ".join(text.split())
    code, text, _ = check(monkeypatch, capsys, "bad", *folder, "--json")
    assert code == 2
    splits = {entry["split"]: entry for entry in json.loads(text)}
    assert splits["test"]["problems"][0]["items"] == ["item 11 (id x0)"]


def test_the_table_and_the_sentences() -> None:
    problem = Problem(
        task="words", split="test", field="story", problem="is nothing", detail="null", count=1200, of=4000,
        items=("item 1", "item 2", "item 3"), refused=True,
    )  # fmt: skip
    note = Problem(
        task="words", split="test", field="", problem="text and options are those of an item before", detail="item 4",
        count=1, of=4000, items=("item 9",), refused=False,
    )  # fmt: skip
    found = [Checked(task="words", split="test", role="scored", items=4000, digest="", problems=(problem, note))]
    words = printed(display.checked_table(found), 80).split()
    assert {"words", "test", "scored", "4,000"} <= set(words)
    refused, noted = display.checked_sentences(found)
    assert refused == (
        "refused: words, test: in 1,200 of 4,000 items story is nothing "
        "(item 1: null; also item 2, item 3 and 1,197 more)."
    )
    assert noted.endswith("in 1 of 4,000 items text and options are those of an item before (item 9: item 4).")
    assert display.data_notes(found) == [noted]
    assert display.data_notes(found * 7)[-1] == "note: 2 more on the data; 'mosld-bench tasks check TASK' shows them"
