"""What names and data hold reaches a terminal, a shell, a file's name, a page or a record as text and no more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosld_bench.format import one_line, visible
from mosld_bench.records.provenance import command_line
from mosld_bench.records.redaction import without_secrets
from mosld_bench.spec.names import path_part, problem_of_study, problem_of_task

STEERS = ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\r", "\x08", "\u202e", "\x00", "\ud800"]


@pytest.mark.parametrize("text", STEERS)
def test_nothing_steers_a_terminal(text: str) -> None:
    shown = visible(f"a{text}b\n\tc")
    assert shown.startswith("a\\")
    assert shown.endswith("b\n\tc")
    assert all(character.isprintable() or character in "\n\t" for character in shown)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_text_stays_as_it_is_where_nothing_steers(text: str) -> None:
    assert visible(visible(text)) == visible(text)
    assert visible(text) == text or not text.isprintable()
    assert visible(one_line(text)) == one_line(text) or not one_line(text).isprintable()


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1))
def test_a_name_is_one_part_of_a_path(name: str) -> None:
    assert Path(path_part(name)).name == path_part(name) or path_part(name) in {".", ".."}
    if problem_of_study(name) is None:
        assert Path(name).name == name
        assert visible(name) == name
    if problem_of_task(name) is None:
        assert visible(name) == name


def test_no_token_of_the_environment_is_in_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setenv("HF_TOKEN", "hf_" + "q" * 30)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("MY_PASSWORD", "short")
    monkeypatch.setenv("COLORTERM", "truecolor-and-more")
    told = without_secrets(f"{os.environ['HF_TOKEN']} 0123456789abcdef short truecolor-and-more https://me:pw@host/x")
    assert told == "*** *** short truecolor-and-more https://***@host/x"
    assert without_secrets("hf_" + "A1" * 17) == "***"
    monkeypatch.setattr(sys, "argv", ["mosld-bench", "run", "--set", "model={name: 0123456789abcdef}"])
    assert "0123456789abcdef" not in command_line()
