"""The command line's start, planning, many trials and records, and their reports: how time grows with their number."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from mosld_bench.inputs.models import load_config
from mosld_bench.methods import Counts, count_trainable, fit, registry
from mosld_bench.methods.base import Method
from mosld_bench.records.frame import load
from mosld_bench.records.record import Point, Record
from mosld_bench.records.store import Store
from mosld_bench.reporting import build_report
from mosld_bench.scheduling import Plan, missing
from mosld_bench.spec.recipe import Recipe, load_recipes
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Fit, ModelSpec, PlannedTrial, Trial
from tests.benchmarks.side_by_side import Row, alone, faster, in_turns, share
from tests.conftest import REPOSITORY
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials, task_configs

FEW, MANY, PLANNED = 1000, 10_000, 100_000
REPORTED = (250, 500, 1000)
_STEPS = 200  # of a curve, as many as a record keeps


def run(rounds: int) -> Iterator[Row]:
    """The command line's start, a plan, then records of invented numbers in a folder of their own."""
    yield from _start(rounds)
    yield _plan(rounds)
    yield _many_trials(rounds)
    with TemporaryDirectory(prefix="mosld-records-") as folder:
        root = Path(folder)
        written = {count: _write(root / str(count), count) for count in sorted({FEW, MANY, *REPORTED})}
        yield from _load(root, rounds)
        yield from _report(root, written, rounds)


def _start(rounds: int) -> Iterator[Row]:
    """Whole processes, the interpreter's own start included."""
    for words in (("--help",), ("methods", "ls")):
        command = [sys.executable, "-m", "mosld_bench", *words]
        seconds = in_turns({"": partial(_quiet, command)}, rounds)[""]
        yield alone("records", " ".join(("mosld-bench", *words)), seconds, wanted="<= 1")


def _quiet(command: list[str]) -> None:
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)


def _plan(rounds: int) -> Row:
    """Three recipes at three budgets on LLaMA-2 7B, whose empty model takes longest to build."""
    recipes = load_recipes(REPOSITORY / "methods")
    config = load_config(ModelSpec(name="NousResearch/Llama-2-7b-hf"))
    cells = [(recipes[name], text) for name in ("lora", "mola", "mosld") for text in ("0.1%", "0.2%", "lora-r16")]

    def ours() -> None:
        counts = Counts(config)
        for recipe, text in cells:
            fit.fit_budget(recipe, config, text, recipes=recipes, counts=counts)

    def plain() -> None:
        for recipe, text in cells:
            method = registry.get(recipe.method)
            target = fit.target_of(text, config, recipes)

            def count(value: int, method: Method = method, recipe: Recipe = recipe) -> int:
                return count_trainable(method, config, method.at(recipe.params, value))

            fit._largest_below(count, target)

    seconds = in_turns({"ours": ours, "plain": plain}, rounds)
    return faster(
        "records", "nine budgets solved on a model of 7B", against="bisection, a model built at every step",
        ours=seconds["ours"], other=seconds["plain"], note="ours also spreads one more rank over the depth",
    )  # fmt: skip


def _many_trials(rounds: int) -> Row:
    """From a study to what of it is left to run, in its order, where there is no record yet."""
    recipe, size = RECIPES["lora"], Fit(target=60000, trainable=60000, total=10**6, residual=0.0, params={})
    configs: dict[str, Any] = {"embedded": None}  # of no known shape, so that there are no prices

    def planned(count: int) -> None:
        study = make_study(seeds=tuple(range(count // 10)), budgets=tuple(f"{i}000" for i in range(60, 70)))
        members = [PlannedTrial(trial, size) for trial in make_trials(study, [recipe])]
        plan = Plan(study, members, configs, {})
        todo = missing(members, Store(Path("nowhere")), overwrite="only-missing", weights={})
        ordered = plan.in_rounds(todo.planned)
        assert len(ordered) == len(plan.hours(ordered)) == count

    seconds = in_turns({str(count): partial(planned, count) for count in (FEW, PLANNED)}, rounds)
    each = {count: [total / count for total in seconds[str(count)]] for count in (FEW, PLANNED)}
    return share(
        "records", f"time a trial of {PLANNED:,}, planned and found missing", against=f"of {FEW:,}",
        ours=each[PLANNED], other=each[FEW], wanted="<= 1.3",
        note=f"{PLANNED:,} in {sorted(seconds[str(PLANNED)])[rounds // 2]:.1f} s",
    )  # fmt: skip


def _write(root: Path, count: int) -> tuple[Study, list[Trial]]:
    """``count`` records below ``root``: nine recipes, two settings, four budgets, and as many seeds as that takes."""
    recipes = list(RECIPES.values())
    budgets = ("30000", "60000", "120000", "240000")
    seeds = 1 + count // 199  # a seed has 7 trainings of 7 recipes at 4 budgets, and of full fine-tuning at one
    study = make_study(
        seeds=tuple(range(seeds)), settings=("mixture", "single"), budgets=budgets, recipes=tuple(RECIPES)
    )
    trials = make_trials(study, recipes)
    kept = [trial for trial in trials if trial.seed < count // 199] + [t for t in trials if t.seed >= count // 199]
    for trial in kept[:count]:
        folder = root / "results" / study.name / trial.id
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(_long(make_record(trial, study)).model_dump_json(indent=1))
    return study, kept[:count]


def _long(record: Record) -> Record:
    """The record with a training curve as long as real ones, of which the curve is the largest part."""
    if record.train_info is None:
        return record
    curve = tuple(
        Point(step=step, loss=1 / step, learning_rate=0.005 * (1 - step / _STEPS), seconds=step / 7)
        for step in range(1, _STEPS + 1)
    )
    return record.model_copy(update={"train_info": record.train_info.model_copy(update={"curve": curve})})


def _load(root: Path, rounds: int) -> Iterator[Row]:
    ways = {str(count): partial(load, root / str(count) / "results") for count in (FEW, MANY)}
    seconds = in_turns(ways, rounds)
    each = {count: [total / count for total in seconds[str(count)]] for count in (FEW, MANY)}
    size = sum(path.stat().st_size for path in root.glob(f"{FEW}/results/*/*/record.json")) / FEW
    yield share(
        "records", f"time a record of {MANY:,}, loaded", against=f"of {FEW:,}", ours=each[MANY], other=each[FEW],
        wanted="<= 1.3",
        note=f"{size / 1000:.0f} kB a record; {MANY:,} in {sorted(seconds[str(MANY)])[rounds // 2]:.1f} s",
    )  # fmt: skip
    opened = _opened(root / str(FEW))
    yield alone(
        "records", "times that a record's file is opened", [max(opened.values())], unit="", wanted="<= 1",
        note=f"{len(opened):,} files opened for {FEW:,} records",
    )  # fmt: skip


def _opened(root: Path) -> Counter[Path]:
    """Every file that ``load`` opens -> how often."""
    times: Counter[Path] = Counter()
    really = Path.open

    def noted(path: Path, *mode: Any, **more: Any) -> Any:
        times[path] += 1
        return really(path, *mode, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", noted)
        load(root / "results")
    return times


def _report(root: Path, written: Mapping[int, tuple[Study, list[Trial]]], rounds: int) -> Iterator[Row]:
    """From files to the PDF; a round is one report of each size."""
    tasks = task_configs()
    took: dict[int, list[float]] = {count: [] for count in REPORTED}
    for turn in range(rounds + 1):
        for count in REPORTED:
            study, trials = written[count]
            started = time.perf_counter()
            sources = Store(root / str(count) / "results").sources(study, tasks)
            build_report(study, trials, sources, root / str(count) / "report")
            if turn:
                took[count].append(time.perf_counter() - started)
    for count in REPORTED[:-1]:
        yield alone("records", f"report of {count}", took[count])
    most, least = REPORTED[-1], REPORTED[0]
    yield alone("records", f"report of {most:,}", took[most], wanted="<= 20")
    yield share(
        "records", f"time a record of {most:,}, reported", against=f"of {least}",
        ours=[seconds / most for seconds in took[most]], other=[seconds / least for seconds in took[least]],
        wanted="<= 1.3",
    )  # fmt: skip
