"""The bench itself: what it says of figures. What it measures is not tested, since machines differ."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mosld_bench.tuners.mixture import MixtureLayer
from tests.benchmarks import layer, real, speed
from tests.benchmarks.memory import peak
from tests.benchmarks.side_by_side import alone, faster, in_turns, share


def test_ways_take_turns_and_warm_ups_do_not_count() -> None:
    order: list[str] = []
    seconds = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warm=1)
    assert order == ["a", "b"] * 4
    assert [len(taken) for taken in seconds.values()] == [3, 3]


def test_ratios_are_taken_round_by_round() -> None:
    """A machine twice as busy in one round changes no ratio, though it changes every time."""
    row = faster("x", "q", against="theirs", ours=[1.0, 2.0, 1.0], other=[4.0, 8.0, 5.0], wanted=">= 4")
    assert (row.ratio, row.low, row.high, row.ours, row.other) == (4.0, 4.0, 5.0, 1.0, 5.0)
    assert row.holds is True
    less = share("x", "q", against="theirs", ours=[3.0, 3.0, 3.0], other=[2.0, 2.0, 2.5], wanted="<= 1.3")
    assert (less.ratio, less.low, less.holds) == (1.5, 1.2, False)
    single = alone("x", "size", [2.0, 3.0, 4.0], unit="GB", wanted="<= 3")
    assert (single.ours, single.ratio, single.holds) == (3.0, None, True)
    assert alone("x", "size", [2.0]).holds is None


def test_every_named_benchmark_is_there() -> None:
    for name in speed.NAMES:
        assert callable(importlib.import_module(f"tests.benchmarks.{name}").run)


def test_peak_counts_what_is_alive_at_once() -> None:
    def work() -> None:
        for _ in range(3):
            ones = torch.ones(1000, 1000)
            twos = ones + 1
            del ones, twos

    assert 8_000_000 <= peak(work) < 8_100_000


def test_the_loop_that_is_timed_is_the_mixture() -> None:
    """Same weights, same output: the comparison is between two ways to one result."""
    torch.manual_seed(0)
    ours = layer.mixture(32, torch.float32, "none")
    assert isinstance(ours, MixtureLayer)
    x = torch.randn(1, 20, 32)
    for gather in (False, True):
        loop = layer.Loop(32, torch.float32, gather=gather)
        with torch.no_grad():
            ours.mixture_up["default"].normal_()
            loop.base.weight.copy_(ours.base_layer.get_parameter("weight"))
            loop.router.weight.copy_(ours.mixture_router["default"])
            for expert in range(layer.EXPERTS):
                rows = slice(expert * layer.RANK, (expert + 1) * layer.RANK)
                loop.down[expert].get_parameter("weight").copy_(ours.mixture_down["default"][rows])
                loop.up[expert].get_parameter("weight").copy_(ours.mixture_up["default"][:, rows])
        torch.testing.assert_close(loop(x), ours(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_benchmark_runs_and_prints_what_it_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layer, "SIZES", ((16, torch.float32),))
    monkeypatch.setattr(real, "threads", torch.get_num_threads)  # what it sets would stay set for all later tests
    monkeypatch.setattr(layer, "REPEATS", 1)
    monkeypatch.setattr(layer, "TOKENS", 64)
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    speed.main(["layer", "--rounds", "2", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert {row["benchmark"] for row in rows} == {"layer"}
    assert all(row["low"] <= row["ratio"] <= row["high"] for row in rows)
    assert any("loop over the experts" in row["against"] and row["wanted"] == ">= 4" for row in rows)
    speed.main(["layer", "--rounds", "1"])
    assert "PEFT's LoRA" in capsys.readouterr().out


def test_an_unknown_name_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, Path(speed.__file__), "speling"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"no benchmark speling; there are {', '.join(speed.NAMES)}" in done.stderr


def test_a_row_is_plain_data() -> None:
    row = faster("b", "q", against="a", ours=[1.0], other=[2.0], wanted=">= 3")
    assert json.loads(json.dumps(row.to_dict()))["holds"] is False
