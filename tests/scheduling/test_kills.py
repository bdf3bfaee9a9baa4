"""A run whose processes are killed at random moments: the same command finishes it, and nothing is lost."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.kills import VICTIMS, Runs, moments

#: How many runs are broken; MOSLD_BENCH_KILLS asks for more of them.
KILLS = int(os.environ.get("MOSLD_BENCH_KILLS", "4"))


@pytest.mark.slow
def test_whatever_is_killed_nothing_is_lost(tiny: Path) -> None:
    with closing(Runs(tiny, ("--methods", "lora", "--seeds", "0,1,2", "--cpus", "1"))) as runs:
        kills = [runs.kill(victim, seconds) for victim, seconds in moments(KILLS, 0, runs.seconds)]
    assert [kill for kill in kills if kill.problems] == []
    assert {kill.victim for kill in kills} == set(list(VICTIMS)[:KILLS])
