"""Statistics of routers against plain loops over tasks, modules, experts and tokens, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosld_bench.reporting import routing_stats as stats

EXPERTS = (4, 2, 6)  # of three modules
TASKS = 3


def case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picks (tasks, modules, N), tokens (tasks, modules) and experts (modules); some experts get nothing."""
    draw = np.random.default_rng(seed)
    picks = np.zeros((TASKS, len(EXPERTS), max(EXPERTS)))
    for module, n in enumerate(EXPERTS):
        picks[:, module, :n] = draw.integers(0, 60, size=(TASKS, n)) * (draw.random((TASKS, n)) > 0.3)
        picks[:, module, 0] += 1
    return picks, draw.integers(40, 90, size=(TASKS, len(EXPERTS))).astype(float), np.array(EXPERTS, dtype=float)


def plain_shares(picks: np.ndarray, module: int) -> list[list[float]]:
    """Of each task the shares of a module's experts."""
    rows = [[float(picks[t, module, e]) for e in range(EXPERTS[module])] for t in range(TASKS)]
    return [[value / math.fsum(row) for value in row] for row in rows]


def means(rows: Sequence[Sequence[float]]) -> list[float]:
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_load_shares_utilisation_and_dead_experts(seed: int) -> None:
    picks, tokens, experts = case(seed)
    loads, shares = stats.load(picks, tokens), stats.shares(picks)
    used = stats.utilisation(shares.mean(axis=0), experts)
    dead, picked = stats.dead(shares.mean(axis=0), experts), stats.picked(picks, tokens)
    for module, n in enumerate(EXPERTS):
        mean = means(plain_shares(picks, module))
        assert dead[module] == sum(share * n < 0.01 for share in mean)
        assert used[module, :n] == pytest.approx([share / (1 / n) for share in mean], rel=1e-12)
        assert np.isnan(used[module, n:]).all()
        each = [math.fsum(picks[t, module]) / tokens[t, module] for t in range(TASKS)]
        assert picked[module] == pytest.approx(math.fsum(each) / TASKS, rel=1e-12)
        for t in range(TASKS):
            assert shares[t, module, :n] == pytest.approx(plain_shares(picks, module)[t], rel=1e-12)
            for e in range(n):
                assert loads[t, module, e] == picks[t, module, e] / tokens[t, module]


@pytest.mark.parametrize("seed", range(5))
def test_information_and_shift(seed: int) -> None:
    picks, _, _ = case(seed)
    shares = stats.shares(picks)
    information, shift = stats.information(shares), stats.shift(shares[:2], shares[2:])
    for module in range(len(EXPERTS)):
        rows = plain_shares(picks, module)
        mean = means(rows)
        bits = [p * math.log2(p / q) for row in rows for p, q in zip(row, mean, strict=True) if p > 0]
        assert information[module] == pytest.approx(math.fsum(bits) / TASKS, rel=1e-9)
        apart = [abs(a - b) for a, b in zip(means(rows[:2]), rows[2], strict=True)]
        assert shift[module] == pytest.approx(math.fsum(apart) / 2, rel=1e-9)


def test_information_is_zero_without_a_choice_and_most_where_each_task_has_its_own_experts() -> None:
    even = np.full((4, 1, 4), 0.25)
    assert stats.information(even) == 0.0
    own = np.eye(4)[:, None, :]
    assert stats.information(own) == 2.0 == stats.most_information(np.array([4.0]), np.array([1.0]), 4)
    two = np.kron(np.eye(2), np.full((1, 2), 0.5))[:, None, :]  # of four experts two a token, another pair a task
    assert stats.information(two) == 1.0 == stats.most_information(np.array([4.0]), np.array([2.0]), 2)
    assert np.isnan(stats.information(even[:1])).all()


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 6))
def test_information_is_between_none_and_the_most(seed: int, picks: int, tasks: int) -> None:
    """Whatever tokens pick, K different experts of N each."""
    n, draw = 6, np.random.default_rng(seed)
    counts = np.zeros((tasks, 1, n))
    for t in range(tasks):
        lean = draw.normal(scale=4, size=n)
        for _ in range(20):
            counts[t, 0, np.argsort(lean + draw.normal(size=n))[:picks]] += 1
    found, most = (
        float(values[0])
        for values in (
            stats.information(stats.shares(counts)),
            stats.most_information(np.array([float(n)]), stats.picked(counts, np.full((tasks, 1), 20.0)), tasks),
        )
    )
    assert 0 <= found <= most + 1e-9


def test_entropies_are_shares_of_the_most_there_is() -> None:
    draw = np.random.default_rng(0)
    chances = draw.dirichlet(np.ones(4), size=(2, 50))  # tasks, tokens, experts
    sums = np.array([[math.fsum(-p * math.log(p) for token in task for p in token)] for task in chances])
    plain = math.fsum(math.fsum(-p * math.log(p) for p in token) for task in chances for token in task) / 100
    found = stats.entropy_share(sums, np.full((2, 1), 50.0), np.array([4.0]))
    assert found == pytest.approx(plain / math.log(4), rel=1e-12)
    assert np.isnan(stats.entropy_share(sums, np.full((2, 1), 50.0), np.array([1.0]))).all()
    even = np.full((2, 1), 50 * math.log(4))
    assert stats.entropy_share(even, np.full((2, 1), 50.0), np.array([4.0])) == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(4))
def test_agreement_is_that_of_the_best_of_all_matchings(seed: int) -> None:
    draw = np.random.default_rng(seed)
    ours, theirs = (draw.random((2, 4, 40)) < 0.3 for _ in range(2))
    found = stats.agreement(ours, theirs)
    for module in range(2):
        best = max(
            sum(ours[module, e, i] and theirs[module, other, i] for e, other in enumerate(order) for i in range(40))
            for order in permutations(range(4))
        )
        assert found[module] == pytest.approx(best / (0.5 * (ours[module].sum() + theirs[module].sum())), rel=1e-12)


def test_agreement_is_whole_under_other_names_and_chance_has_what_a_matching_finds_in_noise() -> None:
    draw = np.random.default_rng(3)
    picks = draw.integers(0, 4, size=2000)
    ours = (picks == np.arange(4)[:, None])[None]
    theirs = ours[:, [2, 0, 3, 1]]
    assert stats.agreement(ours, theirs) == 1.0
    noise = (draw.integers(0, 4, size=2000) == np.arange(4)[:, None])[None]
    found, chance = stats.agreement(ours, noise), stats.chance_agreement(ours, noise)
    assert 0.25 < float(chance[0]) < 0.3  # above 1 / N: the matching is the best of many
    assert found == pytest.approx(chance, abs=0.02)
    assert stats.chance_agreement(ours, theirs) == stats.chance_agreement(ours, theirs)


@given(st.integers(0, 10**6))
def test_one_pick_a_token_is_one_exactly(seed: int) -> None:
    """So that nothing is left to choose after it, whatever the rounding of loads."""
    draw = np.random.default_rng(seed)
    counts = draw.integers(0, 1000, size=(3, 1, 7)).astype(float)
    counts[..., 0] += 1
    tokens = counts.sum(axis=-1)
    assert stats.picked(counts, tokens).tolist() == [1.0]
    assert np.isnan(stats.entropy_share(np.zeros((3, 1)), tokens, stats.picked(counts, tokens))).all()


def test_nothing_is_no_share() -> None:
    assert np.isnan(stats.shares(np.zeros((1, 2)))).all()
    assert np.isnan(stats.shift(np.zeros((0, 1, 2)), np.ones((1, 1, 2)))).all()
    assert np.isnan(stats.agreement(np.zeros((1, 2, 3)), np.zeros((1, 2, 3)))).all()
    assert np.isnan(stats.information(np.full((2, 1, 2), np.nan))).all()


@pytest.mark.parametrize(
    ("largest", "dead", "experts", "expected"),
    [(0.94, 0, 4, False), (0.96, 0, 4, True), (0.5, 1, 4, False), (0.5, 2, 4, True), (0.5, 1, 3, False),
     (math.nan, 0, 4, False)],
)  # fmt: skip
def test_a_module_has_collapsed_by_its_largest_share_or_its_dead_experts(
    largest: float, dead: int, experts: int, expected: bool
) -> None:
    found = stats.collapsed(np.array([largest]), np.array([dead]), np.array([float(experts)]))
    assert found.tolist() == [expected]
