"""Every figure of the tables of differences, computed again from the items: plain loops over plain numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from scipy.stats import binomtest, f, t

from mosld_bench.records.record import Outcome, Record
from mosld_bench.records.store import Store
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.table import Table
from mosld_bench.spec.study import Study
from tests.reporting.reading import analysis_of, tables_of_results
from tests.support.synthetic import RECIPES, items_of, make_record, make_study, make_trials

NAMES = ("lora", "moe-lora", "mola", "mosl", "mosld")
IN, OUT = ("a", "b"), ("c",)
ITEMS = {"a": 40, "b": 30, "c": 24}
PASSAGE = 3  # items, of tasks a and c; those of b stand by themselves
MARGIN = 0.12

Scores = dict[tuple[str, int, str], list[float]]  # recipe, seed, task -> by item


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def variance(values: Sequence[float]) -> float:
    middle = mean(values)
    return math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1)


@dataclass
class Expected:
    """What a difference should come to; ``basis`` decides what is said."""

    difference: float
    error: float | None
    freedom: float | None
    basis: str
    seeds: int
    of_items: bool
    exact: float | None = None

    @property
    def p(self) -> float | None:
        if self.exact is not None or self.error is None or self.freedom is None:
            return self.exact
        return float(2 * t.sf(abs(self.difference) / self.error, self.freedom))

    @property
    def p_equal(self) -> float | None:
        if self.error is None or self.freedom is None or self.basis == "models":
            return None
        return float(t.sf((MARGIN - abs(self.difference)) / self.error, self.freedom))


class Plain:
    """The estimator, written down once more."""

    def __init__(self, scores: Scores, whole: set[tuple[str, int]], tasks: Sequence[str]) -> None:
        """``whole``: the recipes and seeds whose items are at hand; ``tasks``: what the mean is over."""
        self.scores, self.whole, self.tasks = scores, whole, tasks

    def seeds(self, name: str) -> list[int]:
        return sorted({seed for recipe, seed, _ in self.scores if recipe == name})

    def score(self, name: str, seed: int) -> float:
        return mean([mean(self.scores[name, seed, task]) for task in self.tasks])

    @property
    def several(self) -> list[str]:
        return [name for name in NAMES if len(self.seeds(name)) > 1]

    def mean_square(self, names: Sequence[str], seeds: Sequence[int] | None = None) -> tuple[float, int]:
        """Rows and seeds are taken out in turns until nothing is left of either."""
        table = {(n, s): self.score(n, s) for n in names for s in self.seeds(n) if seeds is None or s in seeds}
        columns = {s for _, s in table}
        moved = 1.0
        while moved > 1e-15:
            moved = 0.0
            for place, values in ((0, names), (1, columns)):
                for value in values:
                    cells = [cell for cell in table if cell[place] == value]
                    middle = mean([table[cell] for cell in cells])
                    moved = max(moved, abs(middle))
                    for cell in cells:
                        table[cell] -= middle
        freedom = len(table) - len(names) - len(columns) + 1
        return (math.fsum(v**2 for v in table.values()) / freedom if freedom else 0.0), freedom

    def noisy(self, name: str) -> bool:
        names = self.several
        if name not in names or len(names) < 3:
            return False
        common = sorted(set.intersection(*(set(self.seeds(n)) for n in names)))
        if len(common) < 2:
            return False
        others = [n for n in names if n != name]
        own = variance([self.score(name, s) - mean([self.score(n, s) for n in others]) for s in common])
        square, freedom = self.mean_square(others, common)
        if square < 1e-15:  # rows that are equal but for rounding
            return False
        ratio = own * (len(names) - 1) / len(names) / square
        return bool(f.sf(ratio, len(common) - 1, freedom) < 0.05)

    def items(self, row: str, other: str) -> tuple[float, float, float | None] | None:
        """VI, its degrees of freedom, and VE."""
        seeds = [s for s in self.seeds(row) if s in self.seeds(other)]
        if any((name, s) not in self.whole for name in (row, other) for s in seeds):
            return None
        across = squares = within = 0.0
        for task in self.tasks:
            n = ITEMS[task]
            size = 1 if task == "b" else PASSAGE
            groups = [range(i, min(i + size, n)) for i in range(0, n, size)]
            d = {s: [x - y for x, y in zip(self.scores[row, s, task], self.scores[other, s, task], strict=True)]
                 for s in seeds}  # fmt: skip
            over_seeds = [mean([d[s][i] for s in seeds]) for i in range(n)]
            factor = len(groups) / (len(groups) - 1) / (len(self.tasks) * n) ** 2
            term = factor * math.fsum(
                math.fsum(over_seeds[i] - mean(over_seeds) for i in group) ** 2 for group in groups
            )
            across += term
            squares += term**2 / (len(groups) - 1)
            if len(seeds) > 1:
                within += factor / (len(seeds) * (len(seeds) - 1)) * math.fsum(
                    math.fsum(d[s][i] - mean(d[s]) - over_seeds[i] + mean(over_seeds) for i in group) ** 2
                    for s in seeds
                    for group in groups
                )  # fmt: skip
        return across, across**2 / squares if squares else math.inf, within if len(seeds) > 1 else None

    def difference(self, row: str, other: str) -> Expected:
        seeds = [s for s in self.seeds(row) if s in self.seeds(other)]
        by_seed = [self.score(row, s) - self.score(other, s) for s in seeds]
        items = self.items(row, other)
        square, freedom = self.mean_square(self.several) if len(self.several) > 1 else (0.0, 0)
        if freedom < 2:
            if items is None:
                return Expected(mean(by_seed), None, None, "models", len(seeds), False)
            exact = self.mcnemar(row, other, seeds[0]) if len(seeds) == 1 and self.tasks == ("b",) else None
            return Expected(mean(by_seed), math.sqrt(items[0]), items[1], "models", len(seeds), True, exact)
        basis, of_seeds, degrees = "pooled", 2 * square / len(seeds), float(freedom)
        if len(seeds) == 1:
            basis = "borrowed"
        elif self.noisy(row) or self.noisy(other):
            basis, of_seeds, degrees = "own", variance(by_seed) / len(seeds), len(seeds) - 1.0
        if items is None:
            return Expected(mean(by_seed), math.sqrt(of_seeds), degrees, basis, len(seeds), False)
        excess = max(0.0, items[0] - (self.shared_within() if items[2] is None else items[2]))
        total = of_seeds + excess
        degrees = total**2 / (of_seeds**2 / degrees + excess**2 / items[1])
        return Expected(mean(by_seed), math.sqrt(total), degrees, basis, len(seeds), True)

    def shared_within(self) -> float:
        """The mean of S·VE over the pairs of rows with several common seeds."""
        known = []
        for row, other in combinations(NAMES, 2):
            common = len(set(self.seeds(row)) & set(self.seeds(other)))
            items = self.items(row, other) if common > 1 else None
            if items is not None and items[2] is not None:
                known.append(common * items[2])
        return mean(known) if known else 0.0

    def mcnemar(self, row: str, other: str, seed: int) -> float:
        pairs = list(zip(self.scores[row, seed, "b"], self.scores[other, seed, "b"], strict=True))
        wins, losses = sum(x > y for x, y in pairs), sum(x < y for x, y in pairs)
        return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def holm(values: Sequence[float | None]) -> list[float | None]:
    """As its definition has it: the largest corrected p of all that are as small."""
    known = sorted(p for p in values if p is not None)
    return [
        None if p is None else min(1.0, max((len(known) - i) * q for i, q in enumerate(known) if q <= p))
        for p in values
    ]


def verdict(expected: Expected, adjusted: float | None) -> str:
    if expected.basis == "models" or adjusted is None:
        return "untested"
    if adjusted < 0.05:
        return "better" if expected.difference > 0 else "worse"
    assert expected.p_equal is not None
    return "equal" if expected.p_equal < 0.05 else "open"


def drawn(root: Path, seed: int) -> tuple[Analysis, Scores, set[tuple[str, int]]]:
    """Rows of one to four seeds, one of which may scatter more; the items of a trial or two are not at hand."""
    draw = random.Random(seed)
    study = make_study(in_domain=IN, out_of_domain=OUT, seeds=(0, 1, 2, 3), recipes=NAMES, margin=100 * MARGIN)
    most = 1 if seed % 5 == 4 else 4
    counts = {name: draw.choice([1, 2, most, most]) if most > 1 else 1 for name in NAMES}
    level = {name: draw.choice([0.5, 0.5, 0.6, 0.75]) for name in NAMES}
    spread = {name: draw.choice([1, 1, 1, 5]) for name in NAMES}
    trials = [t for t in make_trials(study, [RECIPES[n] for n in NAMES]) if t.seed < counts[t.recipe.name]]
    scores: Scores = {}
    whole: set[tuple[str, int]] = set()
    for trial in trials:
        name = trial.recipe.name
        shift = draw.gauss(0, 0.03 * spread[name])
        wished = {
            task: round(min(0.95, max(0.05, level[name] + shift + draw.gauss(0, 0.03))) * n) / n
            for task, n in ITEMS.items()
        }
        record = of_size(make_record(trial, study, values=wished), study)
        items = grouped(items_of(record))
        for task, frame in items.groupby("task"):
            scores[name, trial.seed, str(task)] = [float(score) for score in frame["score"]]
        at_hand = draw.random() < 0.93
        whole |= {(name, trial.seed)} if at_hand else set()
        Store(root / "results").write(Outcome(record, items if at_hand else None))
    return analysis_of(root, study, trials), scores, whole


def of_size(record: Record, study: Study) -> Record:
    """The record with as many items as the tasks have here."""
    metrics = tuple(m.model_copy(update={"items": ITEMS[m.task]}) for m in record.metrics if m.primary)
    return record.model_copy(update={"metrics": metrics})


def grouped(items: pd.DataFrame) -> pd.DataFrame:
    passages = [
        None if task == "b" else f"passage {doc // PASSAGE}"
        for task, doc in zip(items["task"], items["doc"], strict=True)
    ]
    return items.assign(group=pd.Series(passages, dtype=object))


def compare(lines: Sequence[Mapping[Any, Any]], expected: dict[tuple[str, str], Expected], what: str) -> None:
    """The lines of a family against what they should be."""
    assert {(line["recipe"], line["of"]) for line in lines} == expected.keys(), what
    adjusted = dict(zip(expected, holm([e.p for e in expected.values()]), strict=True))
    for line in lines:
        key = line["recipe"], line["of"]
        one = expected[key]
        told = f"{what}, {key}: {line}"
        known = one.error is not None and one.freedom is not None
        half = float(t.ppf(0.975, one.freedom or 0.0)) * (one.error or 0.0) if known else None
        numbers = {
            "difference": one.difference,
            "error": one.error,
            "freedom": one.freedom,
            "low": None if half is None else one.difference - half,
            "high": None if half is None else one.difference + half,
            "p": one.p,
            "p_holm": adjusted[key],
            "p_equal": one.p_equal,
            "margin": MARGIN,
        }
        for name, value in numbers.items():
            shown = line[name]
            assert (value is None) == bool(pd.isna(shown)), (name, value, told)
            assert value is None or shown == pytest.approx(value, rel=1e-7, abs=1e-12), (name, value, told)
        words = (one.basis, one.seeds, one.of_items, verdict(one, adjusted[key]))
        assert (line["basis"], line["seeds"], line["of_items"], line["verdict"]) == words, told


class Draw(NamedTuple):
    """The tables of made-up records, and what they should follow from."""

    tables: dict[str, Table]
    scores: Scores
    whole: set[tuple[str, int]]


@pytest.fixture(scope="module")
def draws(tmp_path_factory: pytest.TempPathFactory) -> list[Draw]:
    """Twelve of them."""
    found = []
    for seed in range(12):
        analysis, scores, whole = drawn(tmp_path_factory.mktemp(f"draw-{seed}"), seed)
        found.append(Draw(tables_of_results(analysis), scores, whole))
    return found


@pytest.mark.parametrize("seed", range(12))
def test_every_figure_follows_from_the_items(seed: int, draws: list[Draw]) -> None:
    tables, scores, whole = draws[seed]
    others = NAMES[1:]
    domains = {"in_domain": IN, "out_of_domain": OUT}
    means, tasks = tables["differences"].frame, tables["differences-by-task"].frame
    assert means is not None
    assert tasks is not None
    for domain, of_domain in domains.items():
        plain = Plain(scores, whole, of_domain)
        expected = {(name, domain): plain.difference(name, "lora") for name in others}
        compare(means[means["of"] == domain].to_dict("records"), expected, domain)
        by_task = {
            (name, task): Plain(scores, whole, (task,)).difference(name, "lora")
            for task in of_domain
            for name in others
        }
        compare(tasks[tasks["of"].isin(of_domain)].to_dict("records"), by_task, f"{domain} by task")
    check_standings(tables["main"].frame, means, {d: Plain(scores, whole, tasks_) for d, tasks_ in domains.items()})


def check_standings(main: pd.DataFrame | None, means: pd.DataFrame, plain: dict[str, Plain]) -> None:
    """The verdicts of the main table are those of the differences; what is tied is so after a test of all pairs."""
    assert main is not None
    rows = main.set_index("recipe")
    for domain, of_domain in plain.items():
        verdicts = means[means["of"] == domain].set_index("recipe")["verdict"].to_dict() | {"lora": "reference"}
        assert rows.loc[list(NAMES), f"{domain}_mean_verdict"].to_dict() == verdicts
        pairs = list(combinations(NAMES, 2))
        found = [of_domain.difference(*pair) for pair in pairs]
        told = {
            pair: verdict(one, p) for pair, one, p in zip(pairs, found, holm([one.p for one in found]), strict=True)
        }
        flipped = {"better": "worse", "worse": "better"}
        told |= {(b, a): flipped.get(word, word) for (a, b), word in told.items()}
        most = max(len(of_domain.seeds(name)) for name in NAMES)
        level = {name: mean([of_domain.score(name, s) for s in of_domain.seeds(name)]) for name in NAMES}
        best = max((name for name in NAMES if len(of_domain.seeds(name)) == most), key=level.__getitem__)
        ahead = [name for name in NAMES if name != best and told[name, best] == "better"]
        best = max(ahead, key=level.__getitem__) if ahead else best
        tied = {name: told[name, best] in {"equal", "open"} for name in NAMES if name != best}
        tied = {name: tied[name] for name in tied if told[name, best] != "untested"}
        tied |= {best: any(tied.values())} if tied else {}
        shown = rows.loc[list(NAMES), f"{domain}_mean_tied"].to_dict()
        assert {name: value for name, value in shown.items() if not pd.isna(value)} == tied


def test_the_draws_hold_every_basis_and_verdict(draws: list[Draw]) -> None:
    frames = [draw.tables[name].frame for draw in draws for name in ("differences", "differences-by-task")]
    lines = pd.concat([frame for frame in frames if frame is not None])
    assert set(lines["basis"]) == {"pooled", "own", "borrowed", "models"}
    assert set(lines["verdict"]) == {"better", "worse", "equal", "open", "untested"}
    assert set(lines["of_items"]) == {True, False}
