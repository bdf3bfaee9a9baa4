"""A workspace of a few files, a command in it, and what every refusal has in common."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from mosld_bench.cli import main
from mosld_bench.embedded import MODEL_DIR
from mosld_bench.time_limit import cpu_limit
from tests.conftest import REPOSITORY
from tests.hostile.cases import ROWS, STUDY, TASK, Case

#: CPU time that a refusal may take.
SECONDS = 25.0

#: What foreign code leaves in a workspace where it has run.
MARK = "it-ran"

Refused = Callable[[Case], str]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one recipe on one task."""
    root = tmp_path_factory.mktemp("hostile")
    for name in ("methods", "tasks", "reports/s"):
        (root / name).mkdir(parents=True)
    for name in ("base", "lora", "mosld"):
        shutil.copy(REPOSITORY / "methods" / f"{name}.yaml", root / "methods")
    (root / "tasks" / "toy.yaml").write_text(TASK)
    (root / "tasks" / "toy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (root / "reports" / "s" / "study.yaml").write_text(STUDY)
    shutil.copytree(MODEL_DIR, root / "model", ignore=shutil.ignore_patterns("provenance.json"))
    return root


@pytest.fixture
def workspace(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of its own, in which commands are given."""
    root = tmp_path / "w"
    shutil.copytree(template, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("MOSLD_BENCH_CACHE", str(tmp_path / "cache"))
    return root


@pytest.fixture
def refused(workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Prepares a case, gives its command, and holds what comes of it to what every refusal is; returns what it says.

    That is exit code 2 and a sentence on the standard error within seconds; nothing is written, nothing is lost,
    nothing of the files is run, and nothing steers the terminal.
    """

    def give(case: Case) -> str:
        case.prepare(workspace)
        before = _files(workspace)
        monkeypatch.setattr(sys, "argv", ["mosld-bench", *case.words])
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setattr(logging, "raiseExceptions", False)  # a library may log to the stream of a test before
        capfd.readouterr()
        with cpu_limit(SECONDS), pytest.raises(SystemExit) as stop:
            main()
        out, err = capfd.readouterr()
        assert stop.value.code == 2, (stop.value.code, out[-2000:], err[-2000:])
        assert "Traceback" not in err
        assert re.search(r"[.!?)─╯]\s*$", err) or re.search(r"[.!?]\s*$", out), (out[-500:], err[-500:])
        assert len(err) < 6000
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]", out + err)
        assert "\x1b" not in err
        assert not (workspace / MARK).exists(), "foreign code has run"
        assert _files(workspace) == before
        return err or out

    return give


def _files(root: Path) -> dict[str, str]:
    """Every file below ``root`` with a digest of its content."""
    return {
        str(path.relative_to(root)): sha256(path.read_bytes()).hexdigest() if path.is_file() and _plain(path) else "-"
        for path in sorted(root.rglob("*"))
    }


def _plain(path: Path) -> bool:
    return not path.is_symlink() or not str(path.readlink()).startswith("/dev")
