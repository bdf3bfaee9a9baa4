"""Disks that are full, fill up or are read-only, mounted for the purpose: a sentence, and nothing is lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

WORDS = "run tiny --executor inline --methods lora --seeds 0,1 --root"
#: Fills a disk as soon as the first record is there.
FILLER = "(until ls {root}/results/tiny/*/record.json; do sleep 0.05; done; cat /dev/zero > {root}/results/filler) &"


def mounted(script: str, root: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """What a shell did with mounts of its own, by ``script``, in which ``{run}`` is the study's command."""
    run = f"{sys.executable} -m mosld_bench {WORDS} {root}"
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script.format(root=root, run=run)],
        capture_output=True, text=True, cwd=root, env={**os.environ, "PYTHONPATH": str(REPOSITORY), **env}, timeout=900,
        check=False,
    )  # fmt: skip


@pytest.fixture
def disk(tiny: Path) -> Path:
    """A workspace whose ``results`` a disk can be mounted on."""
    (tiny / "results").mkdir()
    if shutil.which("unshare") is None or mounted("mount -t tmpfs tmpfs {root}/results", tiny).returncode:
        pytest.skip("this system lets nobody mount a disk of his own")
    return tiny


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The only line on the standard error."""
    lines = [line for line in done.stderr.splitlines() if "record.json" not in line and "cat:" not in line]
    assert len(lines) == 1, done.stderr
    return lines[0]


REFUSED = [
    ("mount -t tmpfs -o size=64k tmpfs {root}/results; {run}", "The disk of .*/results/tiny has 0.1 MB free"),
    ("mount --bind -o ro {root}/results {root}/results; {run}", "Nothing can be written to .* .Read-only file system"),
    ("mount -t tmpfs -o size=64k tmpfs {root}/reports/tiny; cp {root}/study.yaml {root}/reports/tiny; {run}",
     "The disk of .*/reports/tiny has 0.1 MB free, and about 10.0 MB"),
    ("mount -t tmpfs -o size=64k tmpfs {root}/t; TMPDIR={root}/t {run}", "The disk of .*/t has 0.1 MB free"),
    ("mount -t tmpfs -o ro tmpfs {root}/t; HF_DATASETS_CACHE={root}/t {run}",
     "the cache of data sets .*/t cannot be written .Read-only file system"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("script", "said"), REFUSED)
def test_what_can_be_known_is_said_before_anything_is_run(disk: Path, script: str, said: str) -> None:
    shutil.copy(disk / "reports" / "tiny" / "study.yaml", disk)
    (disk / "t").mkdir()
    done = mounted(f"{script}; code=$?; find {{root}}/results -mindepth 1; exit $code", disk)
    assert done.returncode == 2, done.stderr
    assert re.search(said, sentence(done)), done.stderr
    assert str(disk / "results") + "/" not in done.stdout


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_the_trial_that_ended_then(disk: Path) -> None:
    """Not those before. With room again the same command runs the rest, and no trial that has a record."""
    script = (
        f"mount -t tmpfs -o size=2m tmpfs {{root}}/results; {FILLER} {{run}}; echo code $?; "
        "cp -r {root}/results/tiny {root}/kept; rm {root}/results/filler; {run}; echo code $?; "
        "cp -r {root}/results/tiny {root}/whole"
    )
    done = mounted(script, disk)
    assert [line for line in done.stdout.splitlines() if line.startswith("code")] == ["code 1", "code 0"], done.stdout
    assert "cannot be written any more (No space left on device)" in sentence(done)
    kept = {path.parent.name: path.read_bytes() for path in (disk / "kept").glob("*/record.json")}
    whole = {path.parent.name: path.read_bytes() for path in (disk / "whole").glob("*/record.json")}
    assert 1 <= len(kept) < len(whole) == 3
    assert kept.items() <= whole.items()
    assert not [path for folder in ("kept", "whole") for path in (disk / folder).rglob(".*")]
    assert {path.name for path in (disk / "kept").iterdir() if path.is_dir()} == set(kept)
