"""From records and items to what is tested: the kept study recomputed by the plain formulas, and what items lack."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from mosld_bench.records.store import Sources, Store
from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Analysis, Comparison, Verdict, analyse
from mosld_bench.reporting.evidence import PROBABILITY, Term
from mosld_bench.reporting.stats import Basis
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import Condition, Domain, Trial
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY
from tests.support import plain_statistics as plain
from tests.support.answers import BLOCK, Scores, analysis_of_answers, items_frame, scored
from tests.support.synthetic import RECIPES, make_study, make_trials, task_configs

# The kept study, through the report's own code and past it


@pytest.fixture(scope="module")
def kept() -> Analysis:
    """The analysis of results/smollm2."""
    workspace = Workspace.find(REPOSITORY)
    study = Study.load(workspace.study_file("smollm2"), {})
    files = TaskFiles.scan((workspace.tasks,))
    tasks = {task: files.config(task) or {} for task in study.tasks}
    return analyse(study, study.plan(workspace, ()), Store(workspace.results).sources(study, tasks))


class KeptRow(NamedTuple):
    """A row as its files have it: answers[task][seed], and each task's clusters."""

    answers: dict[str, dict[int, list[float]]]
    groups: dict[str, list[str] | None]


IN, OUT = ("openbookqa", "commonsense_qa", "mctest", "arc_easy", "arc_challenge"), ("mmlu",)
TASKS = {Domain.IN: IN, Domain.OUT: OUT}


@pytest.fixture(scope="module")
def files() -> dict[tuple[str, str], KeptRow]:
    """(Setting, recipe) -> its row, read from results/smollm2 by this code alone; of each file once."""
    models: dict[tuple[str, str, int], list[pd.DataFrame]] = {}
    for path in sorted((REPOSITORY / "results/smollm2").glob("*/record.json")):
        trial = json.loads(path.read_text(encoding="utf-8"))["trial"]
        models.setdefault((trial["setting"], trial["recipe"]["name"], trial["seed"]), []).append(_read(path.parent))
    rows: dict[tuple[str, str], KeptRow] = {}
    for (setting, recipe, seed), frames in models.items():
        row = rows.setdefault((setting, recipe), KeptRow({}, {}))
        for task in (*IN, *OUT):
            each = [frame[frame["task"] == task].sort_values("doc") for frame in frames if task in set(frame["task"])]
            # One model has learnt a task; out of domain all that were trained on single tasks are asked.
            lines = np.array([frame["score"].tolist() for frame in each])
            row.answers.setdefault(task, {})[seed] = lines.mean(axis=0).tolist()
            passages = each[0]["group"]
            row.groups[task] = None if passages.isna().any() else passages.tolist()
    return rows


def _read(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "items.parquet", columns=["task", "doc", "group", "score"])


MIXTURE = "mixture"
SEVERAL, ONCE = ("lora", "moe-lora", "mola", "mosl", "mosld"), ("prefix-tuning", "sira", "mixlora", "hydralora")


def differences(ours: KeptRow, theirs: KeptRow, tasks: Sequence[str], seeds: Sequence[int]) -> list[plain.Task]:
    """One row minus another, item by item at these seeds; what has no seeds has its one answer at each."""

    def at(row: KeptRow, task: str, seed: int) -> list[float]:
        return row.answers[task][seed if len(row.answers[task]) > 1 else 0]

    return [
        plain.Task(
            [[x - y for x, y in zip(at(ours, task, s), at(theirs, task, s), strict=True)] for s in seeds],
            ours.groups[task],
        )
        for task in tasks
    ]


def means(row: KeptRow, tasks: Sequence[str]) -> dict[int, plain.Number]:
    """Seed -> mean over tasks."""
    return {seed: plain.mean(plain.mean(row.answers[task][seed]) for task in tasks) for seed in row.answers[tasks[0]]}


def expected(files: dict[tuple[str, str], KeptRow], recipe: str, tasks: Sequence[str]) -> tuple[plain.Estimate, Basis]:
    """A row of the mixture minus MoSLD by the plain formulas, with where its noise of seeds comes from."""
    table = [means(files[MIXTURE, name], tasks) for name in SEVERAL]
    noise = plain.seed_noise(table)
    assert noise is not None
    ours, reference = files[MIXTURE, recipe], files[MIXTURE, "mosld"]
    if recipe in ONCE:
        pairs = [
            plain.item_noise(differences(files[MIXTURE, a], files[MIXTURE, b], tasks, range(3)))
            for a, b in combinations(SEVERAL, 2)
        ]
        within = plain.mean(3 * (pair.within or 0) for pair in pairs if pair is not None)
        return plain.difference(differences(ours, reference, tasks, [0]), noise, within=within), Basis.BORROWED
    noisy = any((plain.scatter_p(table, SEVERAL.index(name)) or 1) < 0.05 for name in (recipe, "mosld"))
    of_pair = differences(ours, reference, tasks, range(3))
    return plain.difference(of_pair, noise, noisy=noisy), Basis.OWN if noisy else Basis.POOLED


def blocks(kept: Analysis) -> dict[str, Condition]:
    """Setting -> its block at the budget."""
    return {condition.setting: condition for condition, rows in kept.blocks() if rows[0].ranked}


@pytest.mark.parametrize("domain", Domain)
def test_every_difference_of_the_kept_study_follows_from_its_items(
    kept: Analysis, files: dict[tuple[str, str], KeptRow], domain: Domain
) -> None:
    comparisons = {c.row.recipe.name: c for c in kept.against_reference(blocks(kept)[MIXTURE], domain)}
    assert {*comparisons} == {*SEVERAL, *ONCE} - {"mosld"}
    for recipe, comparison in comparisons.items():
        estimate, basis = expected(files, recipe, TASKS[domain])
        _agree(comparison, estimate)
        assert comparison.difference.basis is basis, recipe
    p_values = [c.difference.p or 0 for c in comparisons.values()]
    assert [c.adjusted for c in comparisons.values()] == pytest.approx(plain.holm(p_values))


@pytest.mark.parametrize("domain", Domain)
@pytest.mark.parametrize("weights", [(1, -1, -1, 1), (-1, -1, 1, 1), (0, 1, -1, 0)])
def test_a_contrast_of_the_kept_rows_follows_from_their_items(
    kept: Analysis, files: dict[tuple[str, str], KeptRow], domain: Domain, weights: tuple[int, ...]
) -> None:
    names, tasks = ("lora", "moe-lora", "mosl", "mosld"), TASKS[domain]
    table = [means(files[MIXTURE, name], tasks) for name in SEVERAL]
    noise = plain.seed_noise(table)
    assert noise is not None
    taken = [(name, c) for name, c in zip(names, weights, strict=True) if c]
    noisy = any((plain.scatter_p(table, SEVERAL.index(name)) or 1) < 0.05 for name, _ in taken)
    rows = [
        [
            plain.Task([files[MIXTURE, name].answers[t][s] for s in range(3)], files[MIXTURE, name].groups[t])
            for t in tasks
        ]
        for name, _ in taken
    ]
    expected = plain.contrast(rows, [Fraction(c, 2) for _, c in taken], noise, noisy=noisy)
    pool = kept.pool(blocks(kept)[MIXTURE])
    by_name = {row.recipe.name: row for row in pool}
    found = kept.evidence.contrast([Term(by_name[name], c / 2) for name, c in taken], domain, pool)
    assert found is not None
    assert found.mean == pytest.approx(expected.mean, abs=1e-9)
    assert found.error == pytest.approx(expected.error, rel=1e-6)
    assert found.freedom == pytest.approx(expected.freedom, rel=1e-6)


def _agree(comparison: Comparison, estimate: plain.Estimate) -> None:
    difference, name = comparison.difference, comparison.row.recipe.name
    assert difference.mean == pytest.approx(estimate.mean, abs=1e-9), name
    assert (difference.low, difference.high) == pytest.approx((estimate.low, estimate.high), rel=1e-6), name
    assert difference.p == pytest.approx(estimate.p, rel=1e-6), name
    assert difference.of_items
    if difference.of_methods:
        assert comparison.equal_p == pytest.approx(estimate.equal_p(0.01), rel=1e-6), name


@pytest.mark.parametrize("domain", Domain)
def test_rows_of_one_seed_alone_have_the_interval_of_their_items(
    kept: Analysis, files: dict[tuple[str, str], KeptRow], domain: Domain
) -> None:
    comparisons = kept.against_reference(blocks(kept)["single"], domain)
    assert [c.row.recipe.name for c in comparisons] == ["lora", "mola"]
    for comparison in comparisons:
        row, reference = (files["single", name] for name in (comparison.row.recipe.name, "mosld"))
        tasks = differences(row, reference, TASKS[domain], [0])
        items = plain.item_noise(tasks)
        assert items is not None
        mean = float(plain.mean(plain.by_seed(tasks)))
        _agree(comparison, plain.estimate(mean, float(items.variance) ** 0.5, items.freedom))
        assert comparison.verdict is Verdict.UNTESTED


def test_every_gain_over_the_frozen_base_follows_from_the_items(
    kept: Analysis, files: dict[tuple[str, str], KeptRow]
) -> None:
    base = files["frozen", "base"]
    each = [plain.item_noise(differences(files[MIXTURE, name], base, IN, range(3))) for name in SEVERAL]
    within = plain.mean(3 * (items.within or 0) for items in each if items is not None)
    spread = plain.mean(plain.variance([*means(files[MIXTURE, name], IN).values()]) for name in SEVERAL)
    for comparison in kept.against_base(blocks(kept)[MIXTURE]):
        row = files[MIXTURE, comparison.row.recipe.name]
        if comparison.row.recipe.name in SEVERAL:
            _agree(comparison, plain.alone(differences(row, base, IN, range(3))))
            continue
        tasks = differences(row, base, IN, [0])
        mean = plain.mean(plain.by_seed(tasks))
        _agree(comparison, plain.combined(mean, spread, 2, plain.item_noise(tasks), within))


def test_the_mixture_minus_single_tasks_follows_from_the_items(
    kept: Analysis, files: dict[tuple[str, str], KeptRow]
) -> None:
    comparisons = kept.between_settings()
    assert [c.row.recipe.name for c in comparisons] == ["lora", "mola", "mosld"]
    for comparison in comparisons:
        name = comparison.row.recipe.name
        tasks = differences(files[MIXTURE, name], files["single", name], IN, [0])
        items = plain.item_noise(tasks)
        assert items is not None
        mean = float(plain.mean(plain.by_seed(tasks)))
        _agree(comparison, plain.estimate(mean, float(items.variance) ** 0.5, items.freedom))


def test_tasks_are_one_family(kept: Analysis, files: dict[tuple[str, str], KeptRow]) -> None:
    comparisons = kept.by_task(blocks(kept)[MIXTURE], Domain.IN)
    assert len(comparisons) == 8 * 5
    assert [c.adjusted for c in comparisons] == pytest.approx(plain.holm([c.difference.p or 0 for c in comparisons]))
    (mctest,) = (c for c in comparisons if (c.of, c.row.recipe.name) == ("mctest", "lora"))
    _agree(mctest, expected(files, "lora", ["mctest"])[0])


# By hand, in points: recipe -> difference, its interval, p; degrees of freedom.
GOLDEN = {
    "lora": ((-0.16, -0.87, 0.55), 0.623, 8.7),
    "moe-lora": ((0.07, -0.64, 0.78), 0.834, 8.0),
}


def test_the_golden_numbers_of_the_kept_study(kept: Analysis) -> None:
    block = blocks(kept)[MIXTURE]
    comparisons = {c.row.recipe.name: c for c in kept.against_reference(block)}
    for recipe, (interval, p, freedom) in GOLDEN.items():
        d = comparisons[recipe].difference
        assert d.low is not None
        assert d.high is not None
        assert d.p is not None
        assert d.freedom is not None
        assert tuple(round(100 * value, 2) for value in (d.mean, d.low, d.high)) == interval
        assert (round(d.p, 3), round(d.freedom, 1)) == (p, freedom)
    noise = kept.pair_noise(block)
    assert noise is not None
    assert round(1e4 * noise.mean_square, 4) == 0.1419
    assert {seeds: round(100 * (kept.detectable(block, seeds=seeds) or 0), 2) for seeds in (3, 5, 10)} == {
        3: 0.98, 5: 0.71, 10: 0.49,
    }  # fmt: skip
    chances = {seeds: stats.power(0.01, noise, seeds=seeds, rows=5) for seeds in (2, 3, 5, 10)}
    chances[1] = stats.power(0.01, noise, seeds=1, rows=5, freedom=8)  # borrowed
    assert {seeds: round(100 * p) for seeds, p in chances.items()} == {1: 38, 2: 52, 3: 81, 5: 98, 10: 100}
    # All rows of three seeds are within one point of MoSLD, at once: the joint claim has the largest p.
    several = {name: c for name, c in comparisons.items() if c.difference.seeds == 3}
    assert {*several} == {"lora", "moe-lora", "mola", "mosl"}
    assert max(c.equal_p or 1 for c in several.values()) == pytest.approx(0.0131, abs=5e-5)
    assert {c.verdict for c in several.values()} == {Verdict.EQUAL}


def test_the_noise_of_seeds_of_the_kept_study(files: dict[tuple[str, str], KeptRow]) -> None:
    noise = plain.seed_noise([means(files[MIXTURE, name], IN) for name in SEVERAL])
    assert noise is not None
    assert (float(noise.mean_square), noise.freedom) == pytest.approx((0.14189333e-4, 8))


def test_the_probability_of_the_right_option_has_half_the_noise_of_accuracy(kept: Analysis) -> None:
    block = blocks(kept)[MIXTURE]
    pool = kept.pool(block)
    accuracy, probability = (kept.evidence.pair_noise(pool, Domain.IN, of) for of in (None, PROBABILITY))
    assert accuracy is not None
    assert probability is not None
    sd = [round(100 * (2 * noise.mean_square) ** 0.5, 2) for noise in (accuracy, probability)]
    assert sd == [0.53, 0.26]


# Items that are not as they should be


def scores(draw: np.random.Generator, seeds: int, tasks: Sequence[str] = ("a", "b"), items: int = 40) -> Scores:
    """Right and wrong answers, half of them right."""
    return {task: draw.integers(0, 2, (seeds, items)) for task in tasks}


def study(seeds: Sequence[int] = (3, 3, 3), tasks: Sequence[str] = ("a", "b")) -> dict[str, Scores]:
    """MoSLD, the reference, and others, with so many seeds each."""
    draw = np.random.default_rng(1)
    names = ("mosld", "lora", "mola", "mosl", "hydralora")
    return {name: scores(draw, count, tasks) for name, count in zip(names, seeds, strict=False)}


def first(comparisons: Sequence[Comparison], recipe: str = "lora") -> Comparison:
    """The comparison of that row."""
    return next(c for c in comparisons if c.row.recipe.name == recipe)


def plain_noise(rows: dict[str, Scores]) -> plain.SeedNoise:
    """MS of the rows."""
    tables = [np.mean([of_task.mean(axis=1) for of_task in row.values()], axis=0) for row in rows.values()]
    noise = plain.seed_noise([dict(enumerate(table.tolist())) for table in tables])
    assert noise is not None
    return noise


def test_passages_are_clusters() -> None:
    rows = study()
    passages = {"a": [f"p{i // 4}" for i in range(40)]}
    together = first(analysis_of_answers(rows, groups=passages).against_reference(BLOCK)).difference
    tasks = [
        plain.Task((rows["lora"][task] - rows["mosld"][task]).astype(float).tolist(), passages.get(task))
        for task in ("a", "b")
    ]
    estimate = plain.difference(tasks, plain_noise(rows))
    assert together.basis is Basis.POOLED
    assert (together.low, together.high) == pytest.approx((estimate.low, estimate.high))


def _changed(analysis: Analysis, change: Any) -> Analysis:
    """The analysis again, where ``change(trial, frame)`` has the items of a trial."""
    items, records = analysis.evidence.items, tuple(analysis.records)

    def read(trial: Any) -> pd.DataFrame | None:
        frame = items(trial)
        return None if frame is None else change(trial, frame)

    return analyse(analysis.study, analysis.trials, Sources(records, analysis.tasks, items=read))


def _of(trial: Any, recipe: str, seed: int) -> bool:
    return (trial.recipe.name, trial.seed) == (recipe, seed)


def test_without_the_items_of_a_seed_the_numbers_are_compared_alone() -> None:
    rows = study()
    whole = analysis_of_answers(rows)
    known = first(whole.against_reference(BLOCK)).difference
    without = _changed(whole, lambda trial, frame: None if _of(trial, "lora", 1) else frame)
    alone = first(without.against_reference(BLOCK)).difference
    assert (known.of_items, alone.of_items) == (True, False)
    noise = plain_noise(rows)
    estimate = plain.combined(known.mean, 2 * noise.mean_square / 3, noise.freedom, None, None)
    assert (alone.mean, alone.low, alone.high) == pytest.approx((known.mean, estimate.low, estimate.high))
    assert first(without.against_reference(BLOCK), "mola").difference.of_items


def test_items_that_do_not_give_the_records_number_are_not_its_items() -> None:
    whole = analysis_of_answers(study())

    def spoilt(trial: Any, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(score=1.0) if _of(trial, "lora", 0) else frame

    assert not first(_changed(whole, spoilt).against_reference(BLOCK)).difference.of_items


def test_items_are_matched_by_their_place_in_the_evaluation_set() -> None:
    whole = analysis_of_answers(study())
    shuffled = _changed(whole, lambda trial, frame: frame.sample(frac=1, random_state=trial.seed))
    before, after = (first(a.against_reference(BLOCK)).difference for a in (whole, shuffled))
    assert (after.low, after.high) == pytest.approx((before.low, before.high))


def test_rows_that_answered_unlike_items_share_some() -> None:
    """LoRA was asked every second item; the noise of items is that of those, on fewer degrees of freedom."""
    rows = study()
    half = {task: of_task[:, ::2] for task, of_task in rows["lora"].items()}
    analysis = analysis_of_answers({**rows, "lora": half})

    def spread(trial: Any, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(doc=2 * frame["doc"]) if trial.recipe.name == "lora" else frame

    difference = first(_changed(analysis, spread).against_reference(BLOCK)).difference
    shared = {name: {task: of_task[:, ::2] for task, of_task in row.items()} for name, row in rows.items()}
    tasks = [plain.Task((shared["lora"][t] - shared["mosld"][t]).astype(float).tolist()) for t in ("a", "b")]
    items, noise = plain.item_noise(tasks), plain_noise({**rows, "lora": half})
    estimate = plain.combined(difference.mean, 2 * noise.mean_square / 3, noise.freedom, items, None)
    assert (difference.low, difference.high) == pytest.approx((estimate.low, estimate.high))


def test_out_of_domain_the_models_of_single_tasks_are_averaged_over_the_items_that_all_answered() -> None:
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), settings=("single",), seeds=(0,), reference="mosld")
    trials, draw = make_trials(study, [RECIPES["mosld"], RECIPES["lora"]]), np.random.default_rng(3)
    answers = {trial.id: {task: draw.integers(0, 2, 30) for task in trial.scored_on} for trial in trials}
    later = trials[-1]  # LoRA on task b was asked items 10 to 39 of task c, the others 0 to 29
    assert (later.recipe.name, later.train_on) == ("lora", ("b",))

    def read(trial: Trial) -> pd.DataFrame:
        frame = items_frame(answers[trial.id], {"c": [f"p{i // 2}" for i in range(30)]})
        moved = (frame["task"] == "c") & (trial.id == later.id)
        groups = frame["group"].where(~moved, [f"p{i // 2}" for i in frame["doc"] + 10])
        return frame.assign(doc=frame["doc"] + 10 * moved, group=groups)

    records = tuple(scored(trial, study, answers[trial.id]) for trial in trials)
    analysis = analyse(study, trials, Sources(records, task_configs(("a", "b", "c")), items=read))
    (block,) = (condition for condition, _ in analysis.blocks())
    (comparison,) = analysis.against_reference(block, Domain.OUT)
    at = {
        trial.id: answers[trial.id]["c"][:20] if trial.id == later.id else answers[trial.id]["c"][10:]
        for trial in trials
    }
    of_row = {n: np.mean([at[t.id] for t in trials if t.recipe.name == n], axis=0) for n in ("mosld", "lora")}
    d = (of_row["lora"] - of_row["mosld"]).tolist()
    items = plain.item_noise([plain.Task([d], [i // 2 for i in range(20)])])
    assert items is not None
    difference = comparison.difference
    expected = plain.estimate(difference.mean, float(items.variance) ** 0.5, items.freedom)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))


def test_passages_that_one_of_two_files_lacks_are_those_of_the_other() -> None:
    passages = {task: [f"p{i // 4}" for i in range(40)] for task in ("a", "b")}
    whole = analysis_of_answers(study(), groups=passages)
    old = _changed(whole, lambda trial, frame: frame.assign(group=None) if trial.recipe.name == "lora" else frame)
    before, after = (first(a.against_reference(BLOCK)).difference for a in (whole, old))
    assert (after.low, after.high) == (before.low, before.high)


def test_a_row_of_one_seed_borrows_and_says_so() -> None:
    rows = study(seeds=(3, 3, 3, 1))
    difference = first(analysis_of_answers(rows).against_reference(BLOCK), "mosl").difference
    assert (difference.basis, difference.seeds, difference.of_methods) == (Basis.BORROWED, 1, True)
    several = {name: row for name, row in rows.items() if name != "mosl"}
    noise = plain_noise(several)
    within = [plain.item_noise(list(_tasks(several[a], several[b]))) for a, b in combinations(several, 2)]
    tasks = [plain.Task(task.values[:1]) for task in _tasks(rows["mosl"], {t: s[:1] for t, s in rows["mosld"].items()})]
    estimate = plain.difference(tasks, noise, within=plain.mean(3 * (pair.within or 0) for pair in within if pair))
    assert (difference.low, difference.high) == pytest.approx((estimate.low, estimate.high))


def _tasks(ours: Scores, theirs: Scores) -> Iterator[plain.Task]:
    for task in ours:
        yield plain.Task((ours[task] - theirs[task]).astype(float).tolist())


def test_with_one_seed_everywhere_no_verdict_is_on_methods() -> None:
    rows = study(seeds=(1, 1, 1))
    rows["lora"] = {task: np.ones_like(of_task) for task, of_task in rows["lora"].items()}
    comparison = first(analysis_of_answers(rows).against_reference(BLOCK))
    assert (comparison.difference.basis, comparison.verdict) == (Basis.MODELS, Verdict.UNTESTED)
    assert comparison.difference.p is not None
    assert comparison.difference.p < 1e-6
    assert comparison.equal_p is None


def test_a_row_that_scatters_more_than_the_others_goes_by_its_own_seeds() -> None:
    draw = np.random.default_rng(0)
    rows: dict[str, Scores] = {
        name: {"a": (draw.random((4, 200)) < 0.5).astype(int)} for name in ("mosld", "lora", "mola", "mosl")
    }
    shares = np.array([0.1, 0.9, 0.2, 0.8])[:, None]
    rows["lora"] = {"a": (draw.random((4, 200)) < shares).astype(int)}
    comparisons = analysis_of_answers(rows).against_reference(BLOCK)
    assert {c.row.recipe.name: c.difference.basis for c in comparisons} == {
        "lora": Basis.OWN, "mola": Basis.POOLED, "mosl": Basis.POOLED,
    }  # fmt: skip
    (task,) = _tasks(rows["lora"], rows["mosld"])
    own = plain.difference([task], plain_noise(rows), noisy=True)
    estimate = first(comparisons).difference
    assert (estimate.low, estimate.high) == pytest.approx((own.low, own.high))
