"""The command line in this process."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from mosld_bench.cli import main
from tests.conftest import REPOSITORY


class Finished(NamedTuple):
    """What a command left: its exit code and what it printed, without colours."""

    code: int
    out: str
    err: str


Command = Callable[..., Finished]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`mosld-bench WORDS`, of the repository's recipes, tasks and studies, in an empty folder."""
    for name in ("methods", "tasks", "reports"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # commands put the working directory on it

    def run(*words: str) -> Finished:
        monkeypatch.setattr(sys, "argv", ["mosld-bench", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        code = stop.value.code
        assert isinstance(code, int)
        return Finished(code, *(re.sub(r"\x1b\[[0-9;]*m", "", text) for text in (out, err)))

    return run
