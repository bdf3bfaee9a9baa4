"""Scores against costs: the front, what tests say of it, what rows cost, and how the report draws and prints it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats as distributions

from mosld_bench.records.profile import Entry, Flops, Profile
from mosld_bench.records.record import Parameters, Record
from mosld_bench.reporting.analysis import Analysis, Verdict
from mosld_bench.reporting.figures import draw_all, pareto
from mosld_bench.reporting.figures.pareto import CostAxis, round_ticks, shifts
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import report_style
from mosld_bench.reporting.pareto import COSTS, Cost, Group, Standing, at, front, groups, no_more, steps
from mosld_bench.reporting.sections.pareto import pareto_section
from mosld_bench.reporting.table import Table
from mosld_bench.spec.trial import Domain, ModelSpec
from tests.reporting.reading import MIXTURE, analysis_of, analysis_with
from tests.support.synthetic import RECIPES, make_profile, make_record, make_records, make_study, make_trials

NAMES = ("base", "full", "prefix-tuning", "lora", "mola", "mosld")
points = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12)


def analysed(root: Path, recipes: tuple[str, ...] = NAMES, *, items: bool = False, **changes: Any) -> Analysis:
    return analysis_of(root, *make_records(root, recipes, items=items, **{"seeds": (0, 1, 2), **changes}))


# The front


@given(points)
def test_the_front_is_what_no_other_point_beats_at_no_higher_a_cost(drawn: list[tuple[int, int]]) -> None:
    costs, ranks = [float(cost) for cost, _ in drawn], [float(rank) for _, rank in drawn]
    on = front(costs, ranks)
    assert any(on)
    for cost, rank, is_on in zip(costs, ranks, on, strict=True):
        better = [r for c, r in zip(costs, ranks, strict=True) if c <= cost and r > rank]
        cheaper = [c for c, r in zip(costs, ranks, strict=True) if r == rank and c < cost]
        assert is_on == (not better and not cheaper)
    line = steps(costs, ranks)
    assert set(line) == {(c, r) for c, r, is_on in zip(costs, ranks, on, strict=True) if is_on}
    for cost in costs:
        assert at(line, cost) == max(r for c, r in zip(costs, ranks, strict=True) if c <= cost)


@given(points, st.floats(0, 0.5))
def test_costs_within_the_slack_count_as_equal(drawn: list[tuple[int, int]], slack: float) -> None:
    """Then one of those that cost about the same is on the front, and never one of two that differ in rank alone."""
    costs, ranks = [float(cost) for cost, _ in drawn], [float(rank) for _, rank in drawn]
    on = front(costs, ranks, slack)
    assert any(is_on for rank, is_on in zip(ranks, on, strict=True) if rank == max(ranks))
    assert all(strict or not loose for strict, loose in zip(front(costs, ranks), on, strict=True) if slack == 0)
    assert front([100, 101], [1, 2], 0.02) == [False, True]
    assert front([100, 101], [1, 2], 0.001) == [True, True]
    assert front([100, 101], [2, 2], 0.02) == [True, True]


def test_a_time_is_no_more_than_another_where_it_ends_before_that_begins() -> None:
    assert no_more(Cost(2, 1, 3), Cost(4, 3, 5))
    assert not no_more(Cost(2, 1, 3.1), Cost(4, 3, 5))
    assert not no_more(Cost(2, None, None), Cost(9, 9, 9))
    assert no_more(Cost.counted(101), Cost.counted(100), 0.01)
    assert not no_more(Cost.counted(102), Cost.counted(100), 0.01)


# What rows cost, and how they stand


def member_costs(group: Group, name: str) -> dict[str, Cost]:
    return next(member.costs for member in group.members if member.row.recipe.name == name)


def standing(group: Group, name: str, key: str) -> Standing | None:
    names = [member.row.recipe.name for member in group.members]
    return group.standings[key][names.index(name)]


def test_costs_are_those_of_the_records(tmp_path: Path) -> None:
    analysis = analysed(tmp_path)
    group, outside = groups(analysis)
    assert (group.of, outside.of, group.setting) == (Domain.IN, Domain.OUT, "mixture")
    assert [kind.key for kind in group.kinds] == [
        "trainable_parameters", "active_parameters", "stored_parameters", "train_seconds",
    ]  # fmt: skip
    row = next(row for row in analysis.rows if row.recipe.name == "mola")
    costs = member_costs(group, "mola")
    assert costs["trainable_parameters"] == Cost.counted(row.trainable or 0)
    assert costs["active_parameters"].value == (row.trainable or 0) // 2
    assert costs["stored_parameters"].value == row.trainable
    seconds = [record.train_info.seconds for record in row.records if record.train_info]
    mean = sum(seconds) / 3
    spread = math.sqrt(sum((value - mean) ** 2 for value in seconds) / 2)
    half = float(distributions.t.ppf(0.975, 2)) * spread / math.sqrt(3)
    assert costs["train_seconds"] == pytest.approx((mean, mean - half, mean + half))
    assert all(cost == Cost.counted(0) for cost in member_costs(group, "base").values())


def test_a_seed_of_single_tasks_takes_the_training_of_all(tmp_path: Path) -> None:
    tasks = ("everyday", "science")
    analysis = analysed(tmp_path, ("base", "lora"), settings=("single",), in_domain=tasks, seeds=(0,))
    row = analysis.trained[0]
    cost = member_costs(groups(analysis)[0], "lora")["train_seconds"]
    assert cost.value == pytest.approx(sum(r.train_info.seconds for r in row.records if r.train_info))
    assert (cost.low, cost.high) == (None, None)


@pytest.mark.parametrize("items", [False, True])
def test_standings_follow_from_numbers_and_tests(items: bool, tmp_path: Path) -> None:
    analysis = analysed(tmp_path, items=items)
    for group in groups(analysis):
        for kind in group.kinds:
            known = [(m, s) for m, s in zip(group.members, group.standings[kind.key], strict=True) if s is not None]
            slack = analysis.study.budget_tolerance if kind.counted else 0.0
            costs = [member.costs[kind.key].value for member, _ in known]
            on = front(costs, [member.score.mean for member, _ in known], slack)
            assert [s is Standing.ON for _, s in known] == on
            for member, found in known:
                if found is Standing.OFF:
                    assert any(
                        no_more(other.costs[kind.key], member.costs[kind.key], slack)
                        and other.score.mean > member.score.mean
                        for other, _ in known
                    )
        assert standing(group, "base", "trainable_parameters") is Standing.ON  # nothing costs less than nothing
        assert standing(group, "prefix-tuning", "trainable_parameters") is Standing.OFF  # ten points below the others


def plain_holm(values: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Step by step: the smallest p times how many there are, the next times one fewer, never below the one before."""
    adjusted: dict[tuple[str, str], float] = {}
    before = 0.0
    for step, (pair, p) in enumerate(sorted(values.items(), key=lambda entry: entry[1])):
        before = adjusted[pair] = max(before, min(1.0, p * (len(values) - step)))
    return adjusted


@pytest.mark.parametrize("key", ["trainable_parameters", "active_parameters"])
def test_who_is_off_is_found_pair_by_pair(key: str, tmp_path: Path) -> None:
    """Over all ordered pairs of which the second costs no more, each tested as the report tests its rows."""
    analysis = analysed(tmp_path, items=True)
    group = groups(analysis)[0]
    members = {member.row.recipe.name: member for member in group.members}
    block = [row for row in analysis.trained if row.condition == MIXTURE]
    values: dict[tuple[str, str], float] = {}
    worse: set[tuple[str, str]] = set()
    for name, one in members.items():
        for other_name, other in members.items():
            if name == other_name or other.costs[key].value > one.costs[key].value * 1.01:
                continue
            if other.row.frozen:
                pool = block if one.row in block else [one.row]
                estimate = analysis.evidence.against_base(one.row, other.row, group.of, pool)
            else:
                pool = block if one.row in block and other.row in block else [one.row, other.row]
                estimate = analysis.evidence.difference(one.row, other.row, group.of, pool)
            assert estimate is not None
            if estimate.p is not None and estimate.of_methods:
                values[name, other_name] = estimate.p
                worse |= {(name, other_name)} if estimate.mean < 0 else set()
    off = {pair[0] for pair, p in plain_holm(values).items() if p < 0.05 and pair in worse}
    assert off == {name for name in members if standing(group, name, key) is Standing.OFF}


def test_what_a_test_of_the_report_does_not_tell_apart_is_not_shown_off(tmp_path: Path) -> None:
    """Holm over more pairs is no weaker: whoever is shown off by a row of its block is worse in the report's tests."""
    analysis = analysed(tmp_path, items=True)
    group = groups(analysis)[0]
    worse = {c.row.recipe.name for c in analysis.against_best(MIXTURE) if c.verdict is Verdict.WORSE}
    off = {
        member.row.recipe.name
        for member, found in zip(group.members, group.standings["trainable_parameters"], strict=True)
        if found is Standing.OFF
    }
    assert off <= worse
    assert off


def test_one_seed_shows_nothing_off(tmp_path: Path) -> None:
    for group in groups(analysed(tmp_path, seeds=(0,), items=True)):
        assert all(found is not Standing.OFF for of_cost in group.standings.values() for found in of_cost)


def test_an_untrained_model_that_scores_better_shows_a_row_off(tmp_path: Path) -> None:
    study = make_study(recipes=("base", "lora", "mola"), seeds=(0, 1, 2))
    trials = make_trials(study, [RECIPES[name] for name in study.recipes])
    high = dict.fromkeys(study.out_of_domain, 0.9)
    records = [make_record(t, study, values=high if t.setting == "frozen" else None) for t in trials]
    inside, outside = groups(analysis_with(tmp_path, study, records))
    for name in ("lora", "mola"):
        assert standing(outside, name, "stored_parameters") is Standing.OFF
        assert standing(outside, name, "train_seconds") is Standing.OFF
    assert Standing.ON in {standing(inside, name, "stored_parameters") for name in ("lora", "mola")}


def without_parameters(record: Record) -> Record:
    return record.model_copy(update={"parameters": None})


def test_records_of_before_have_no_fronts(tmp_path: Path) -> None:
    study = make_study(recipes=("base", "lora", "mola"), seeds=(0, 1))
    trials = make_trials(study, [RECIPES[name] for name in study.recipes])
    analysis = analysis_with(tmp_path, study, [without_parameters(make_record(t, study)) for t in trials])
    assert groups(analysis) == []
    assert pareto_section(analysis) is None
    assert pareto.draw(analysis) is None
    assert all(isinstance(plot, str) or plot.name != "fronts" for plot in draw_all(analysis))


def profile_of(analysis: Analysis, times: Mapping[str, tuple[float, ...]], model: str = "embedded") -> Profile:
    """A profile of the rows of an analysis that ``times`` names, with these seconds a decoded token."""
    rows = {row.recipe.name: row for row in analysis.rows}
    sizes = {name: next(record.size for record in row.records if record.size) for name, row in rows.items()}
    flops = Flops(forward=1e6, forward_formula=None, step=None, step_formula=None)
    entries = [
        Entry(recipe=rows[name].recipe, budget=rows[name].budget, fit=sizes[name], active=1, stored=1, flops=flops,
              prompt=(1.0,) * len(seconds), decode=seconds)
        for name, seconds in times.items()
    ]  # fmt: skip
    return make_profile(model=ModelSpec(name=model), entries=tuple(entries))


TIMES = {"base": (0.002, 0.003, 0.004), "lora": (0.003, 0.005, 0.006), "mola": (0.009, 0.008, 0.01)}


def test_decoding_comes_from_the_profile_where_it_is_of_the_row(tmp_path: Path) -> None:
    bare = analysed(tmp_path)
    group = groups(replace(bare, profile=profile_of(bare, TIMES)))[0]
    assert group.kinds[-1].key == "decode_ms"
    assert member_costs(group, "base")["decode_ms"] == pytest.approx((3, 2, 4))
    assert member_costs(group, "lora")["decode_ms"] == pytest.approx((5, 3, 6))
    assert "decode_ms" not in member_costs(group, "mosld")
    assert standing(group, "mosld", "decode_ms") is None
    assert standing(group, "base", "decode_ms") is Standing.ON
    elsewhere = groups(replace(bare, profile=profile_of(bare, TIMES, model="another")))[0]
    assert "decode_ms" not in elsewhere.standings
    other = profile_of(bare, TIMES)
    larger = [e.model_copy(update={"fit": e.fit.model_copy(update={"trainable": 7})}) for e in other.entries[1:]]
    unlike = other.model_copy(update={"entries": (other.entries[0], *larger)})
    assert "decode_ms" not in groups(replace(bare, profile=unlike))[0].standings


# The table and the figure


def table_of(analysis: Analysis) -> Table:
    section = pareto_section(analysis)
    assert section is not None
    return next(block for block in section.blocks if isinstance(block, Table))


def test_the_table_says_where_each_row_stands(tmp_path: Path) -> None:
    analysis = analysed(tmp_path, items=True)
    table, found = table_of(analysis), groups(analysis)
    assert table.name == "pareto"
    assert table.frame is not None
    assert len(table.frame) == sum(len(group.members) for group in found)
    records = [{str(key): value for key, value in line.items()} for line in table.frame.to_dict("records")]
    numbers_of = {(record["role"], record["recipe"]): record for record in records}
    lines = [line for line in table.rows if len(line.cells) > 1]
    assert len(lines) == len(table.frame)
    place = 0
    for group in found:
        for index, member in enumerate(group.members):
            numbers = numbers_of[group.of.value, member.row.recipe.name]
            assert numbers["score"] == pytest.approx(member.score.mean)
            assert (numbers["score_low"], numbers["score_high"]) == pytest.approx((member.score.low, member.score.high))
            for kind, cell in zip(group.kinds, lines[place].cells[2:], strict=True):
                stands = group.standings[kind.key][index]
                assert numbers[f"{kind.key}_front"] == stands
                assert (cell.bold, cell.mark) == (stands is Standing.ON, "†" if stands is Standing.OPEN else "")
            place += 1


def test_rows_of_several_budgets_are_one_group_and_have_their_budget_beside_them(tmp_path: Path) -> None:
    analysis = analysed(tmp_path, ("base", "full", "lora", "mola"), budgets=("60000", "120000"))
    group = groups(analysis)[0]
    assert len(group.members) == 6
    titles = [line.cells[0].text for line in table_of(analysis).rows]
    assert {"LoRA (60,000 parameters)", "LoRA (120,000 parameters)", "Full fine-tuning"} <= set(titles)


def test_the_figure_has_a_panel_for_every_domain_and_cost(tmp_path: Path) -> None:
    bare = analysed(tmp_path)
    analysis = replace(bare, profile=profile_of(bare, TIMES))
    with report_style():
        plot = pareto.draw(analysis)
    assert isinstance(plot, Plot)
    found = groups(analysis)
    panels = plot.figure.axes
    assert len(panels) == 2 * 5
    assert [axes.get_xlabel() for axes in panels[5:]] == [kind.label for kind in COSTS]
    for axes, (group, kind) in zip(panels, ((g, k) for g in found for k in COSTS), strict=True):
        known = [m for m in group.members if kind.key in m.costs and m.costs[kind.key].value > 0]
        drawn = {
            (float(np.asarray(line.get_xdata())[0]), float(np.asarray(line.get_ydata())[0]))
            for line in axes.lines
            if line.get_marker() not in {"None", None, ""}
        }
        assert drawn == {(m.costs[kind.key].value, m.score.mean) for m in known}
        left, right = axes.get_xlim()
        assert all(left < m.costs[kind.key].value < right for m in known)
        low, high = axes.get_ylim()
        assert all(low < m.score.mean < high for m in known if not m.row.frozen)
        best = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
        xs, ys = np.asarray(best.get_xdata(), float), np.asarray(best.get_ydata(), float)
        assert (np.diff(ys) >= 0).all()
        for member in known:
            cost = member.costs[kind.key].value
            assert ys[xs <= cost].max() >= member.score.mean
            assert axes.collections, "the band of the front"
        assert len(axes.get_xticks()) <= 4
    logarithmic = [axes.get_xscale() for axes in panels[:5]]
    assert logarithmic == ["log", "log", "log", "linear", "linear"]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12), st.floats(1, 60))
def test_points_are_spread_no_more_than_they_have_to_be(places: list[float], most: float) -> None:
    moves = shifts(places, 5.0, most)
    moved = [place + shift for place, shift in zip(places, moves, strict=True)]
    gaps = np.diff([moved[i] for i in sorted(range(len(places)), key=lambda i: places[i])])
    assert (gaps >= -1e-6).all(), "their order stays"
    assert max(map(abs, moves)) <= most
    if len(places) * 5.0 <= most:  # no cluster is so wide
        assert (gaps >= 5 - 1e-6).all()
    assert sum(moves) == pytest.approx(0, abs=1e-6)  # a cluster is spread around its middle
    apart = [i * 6.0 for i in range(len(places))]
    assert shifts(apart, 5.0, most) == pytest.approx([0.0] * len(places), abs=1e-9)


@given(st.lists(st.floats(1, 1e9), min_size=1, max_size=9), st.floats(60, 200), st.booleans())
@example([360116794.0, 84733158.0], 60.0, True)
def test_an_axis_has_room_for_every_point_as_it_is_drawn(costs: Sequence[float], wide: float, spread: bool) -> None:
    axis = CostAxis.of([Cost.counted(cost) for cost in costs], wide, spread=spread)
    place = math.log if axis.logarithmic else float
    scale = wide / (place(axis.right) - place(axis.left))
    drawn = [scale * (place(c) - place(axis.left)) + s for c, s in zip(costs, axis.shifts, strict=True)]
    assert all(3 < x < wide - 3 for x in drawn)
    assert spread or not any(axis.shifts)
    assert axis.logarithmic or max(costs) <= 5 * min(costs)
    assert not axis.logarithmic or max(costs) > 4 * min(costs)
    assert axis.left > 0


@given(st.floats(-3, 12), st.floats(0.05, 6))
def test_ticks_are_a_few_round_numbers_within_the_axis(exponent: float, decades: float) -> None:
    left, right = 10**exponent, 10 ** (exponent + decades)
    ticks = round_ticks(left, right)
    assert 1 <= len(ticks) <= 3
    assert all(left <= tick <= right for tick in ticks)
    assert ticks == sorted(ticks)


def test_parameters_of_some_records_are_enough(tmp_path: Path) -> None:
    study = make_study(recipes=("base", "lora", "mola"), seeds=(0, 1))
    trials = make_trials(study, [RECIPES[name] for name in study.recipes])
    records = [make_record(t, study) for t in trials]
    some = [r if r.trial.recipe.name == "lora" else without_parameters(r) for r in records]
    group = groups(analysis_with(tmp_path, study, some))[0]
    assert "active_parameters" not in group.standings
    assert group.standings["trainable_parameters"][0] is Standing.ON
    assert isinstance(records[0].parameters, Parameters)
