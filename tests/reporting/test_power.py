"""What a study will find: the kept records' own figures, other numbers of items by hand, and a promise kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mosld_bench import display
from mosld_bench.records.pilots import find_pilots
from mosld_bench.records.record import Outcome, Record
from mosld_bench.records.scale import SHARE, Range
from mosld_bench.records.store import Store
from mosld_bench.reporting import stats
from mosld_bench.reporting.power import Power, study_power
from mosld_bench.spec.block import blocks_of
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Domain, EvaluateSpec, Trial
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY
from tests.support.synthetic import RECIPES, items_of, make_record, make_study, make_trials

NAMES = ("lora", "moe-lora", "mola", "mosld")


def power_of(
    root: Path, study: Study, trials: Sequence[Trial], sizes: Mapping[str, int | None] | None = None
) -> list[Power]:
    store, blocks = Store(root / "results"), blocks_of(study, trials)
    pilots = find_pilots(study, trials, store)
    return study_power(study, blocks, pilots, store, definitions={}, sizes=sizes or {})


def kept(name: str, overrides: Mapping[str, Any] | None = None, sizes: Mapping[str, int] | None = None) -> list[Power]:
    """Of a study of the repository, with the kept records."""
    workspace = Workspace(REPOSITORY, REPOSITORY)
    study = Study.load(workspace.study_file(name), overrides)
    return power_of(REPOSITORY, study, study.plan(workspace), sizes)


def sentences(powers: Sequence[Power], wished: float | None = None) -> list[str]:
    """What `plan` prints of them, without the commands."""
    blocks = list({id(power.block): power.block for power in powers}.values())
    hours = {trial.id: 0.5 for block in blocks for trials in block.rows.values() for trial in trials}
    lines = display.power_sentences(blocks, powers, wished=wished, hours=hours, command=lambda *asked: "a command")
    return [line for line in lines if line != "  a command"]


def test_smollm2_finds_what_its_records_say() -> None:
    """0.98 points with three seeds, 0.71 with five, 0.49 with ten: of five rows, MS 0.1419 points² on 8 degrees."""
    inside, outside, *single = kept("smollm2")
    assert (inside.of, outside.of, inside.scale) == (Domain.IN, Domain.OUT, SHARE)
    assert inside.noise.of_pair.mean_square * 1e4 == pytest.approx(0.1419, abs=5e-5)
    assert (inside.noise.freedom, inside.noise.rows, inside.noise.seeds) == (8, 5, 3)
    assert set(inside.noise.items.values()) == set(inside.items.values()) == {500}
    found = [inside.detectable(seeds) for seeds in (3, 5, 10)]
    assert found == pytest.approx([0.0098, 0.0071, 0.0049], abs=5e-5)
    assert inside.noise.factors == pytest.approx((0.675, 1.916), abs=5e-4)
    assert (inside.seeds_for(0.005), inside.seeds_for(0.01), inside.seeds_for(1e-5)) == (10, 3, None)
    # A row of one seed beside these borrows their noise: three times the variance, of the seeds.
    assert inside.detectable_with_fewer(1) == pytest.approx(3**0.5 * (found[0] or 0), rel=1e-6)
    assert [power.detectable(1) for power in single] == [None, None], "three rows of one seed test nothing"
    assert {power.pilot.differences(power.block.trial)["setting"] for power in single} == {"mixture"}


def test_a_study_without_seeds_is_judged_by_another() -> None:
    powers = kept("smollm2-budget")
    assert {power.pilot.study for power in powers} == {"smollm2"}
    assert [str(power.block.condition.budget) for power in powers[::2]] == [
        "lora-r8",
        "lora-r16",
        "lora-r32",
        "lora-r64",
    ]
    inside = powers[0]
    assert inside.detectable(1) is None
    assert inside.detectable(3) == pytest.approx(
        stats.detectable_effect(kept("smollm2")[0].on_items, seeds=3, rows=3)
    ), "its own three rows, which leave fewer degrees of freedom than the five of the records"


def test_what_items_cause_goes_with_their_number() -> None:
    """A third less noise with all items of the tasks (500 of 500 to 2,376): in proportion to what each task's cause."""
    sizes = {"openbookqa": 500, "commonsense_qa": 1221, "mctest": 840, "arc_easy": 2376, "arc_challenge": 1172}
    (limited, *_), (every, *_) = (kept("smollm2", {"evaluate.limit": n}, sizes) for n in (500, None))
    assert every.items == every.all_items == limited.all_items == sizes
    assert every.on_items == limited.on_all_items
    ratio = every.on_items.of_items / limited.on_items.of_items
    assert ratio == pytest.approx(sum(500 / size for size in sizes.values()) / 5, rel=0.06)
    seeds_alone = [power.on_items.mean_square - power.on_items.of_items for power in (limited, every)]
    assert seeds_alone[0] == pytest.approx(seeds_alone[1])
    assert every.on_items.mean_square / limited.on_items.mean_square == pytest.approx(0.67, abs=0.05)
    assert limited.seeds_for(0.005, all_items=True) == every.seeds_for(0.005) == 7
    (fewer, *_) = kept("smollm2", {"evaluate.limit": 100}, sizes)
    assert set(fewer.items.values()) == {100}
    assert fewer.on_items == limited.on_items.on(1 / 5)


def test_without_sizes_a_pilot_tells_how_many_items_there_are(tmp_path: Path) -> None:
    """Where it scored them all, and where its limit left none out; else as many as it had are taken."""
    (unknown, *_) = kept("smollm2", {"evaluate.limit": None})
    assert (set(unknown.items.values()), unknown.all_items) == ({500}, None)
    write(tmp_path, make_study(recipes=NAMES))
    for limit, expected in ((100, 100), (None, 400), (900, 400)):
        study = make_study(recipes=NAMES, evaluate=EvaluateSpec(limit=limit))
        (power, *_) = power_of(tmp_path, study, plan(study))
        assert set(power.items.values()) == {expected}
        assert power.all_items is not None
        assert set(power.all_items.values()) == {400}


def plan(study: Study) -> list[Trial]:
    return make_trials(study, [RECIPES[name] for name in study.recipes])


def write(root: Path, study: Study, items: bool = True, **changes: Any) -> list[Record]:
    """Records of every trial of a study; ``changes``: fields of the metrics of its first task."""
    records = []
    for trial in plan(study):
        record = make_record(trial, study)
        first = study.in_domain[0]
        metrics = tuple(m.model_copy(update=changes) if m.task == first and m.primary else m for m in record.metrics)
        records.append(record.model_copy(update={"metrics": metrics}))
        Store(root / "results").write(Outcome(records[-1], items_of(records[-1]) if items else None))
    return records


def test_without_items_the_numbers_alone_tell(tmp_path: Path) -> None:
    study = make_study(recipes=NAMES)
    write(tmp_path, study, items=False)
    inside, outside = power_of(tmp_path, study, plan(study))
    assert not inside.noise.has_items
    assert "The choice of items is left out" in sentences([inside])[0]
    assert inside.detectable(3) is not None
    assert outside.detectable(3) is not None
    halved = make_study(recipes=NAMES, evaluate=EvaluateSpec(limit=200))
    (same, _) = power_of(tmp_path, halved, plan(halved))
    assert same.on_items == inside.on_items, "what fewer items cost is not known"


def test_a_domain_without_a_mean_is_judged_task_by_task(tmp_path: Path) -> None:
    """Whatever the scale: of a perplexity, where lower is better, there are no points to ask for."""
    study = make_study(recipes=NAMES, in_domain=("everyday", "science"))
    write(tmp_path, study, metric="word_perplexity,none", higher_is_better=False)
    perplexity, accuracy, outside = power_of(tmp_path, study, plan(study))
    assert (perplexity.of, accuracy.of, outside.of) == ("everyday", "science", Domain.OUT)
    assert (perplexity.scale.range, perplexity.scale.higher_is_better) == (Range.NUMBER, False)
    assert accuracy.scale == SHARE
    assert set(perplexity.items) == {"everyday"}
    for power in (perplexity, accuracy, outside):
        assert power.detectable(3) is not None
    wished = [power.as_data(1.0)["wished"] for power in (perplexity, accuracy)]
    assert wished[0] == {"effect": None, "seeds": None, "added_trials": None}
    assert wished[1]["effect"] == 0.01
    _, found, of_perplexity, *_ = sentences([perplexity, accuracy, outside], wished=1)
    number = r"[\d.]+"
    assert re.search(
        rf"from {number} on everyday, {number} points on science and {number} points out-of-domain, with five seeds "
        rf"from {number}, {number} and {number}",
        found,
    )
    assert of_perplexity == (
        "A difference of 1 point on everyday (mixture 60000) cannot be asked for: its metric is not counted in points."
    )


def test_items_set_a_limit_that_no_seeds_go_below(tmp_path: Path) -> None:
    """Methods that each have items of their own differ by these in every seed."""
    study = make_study(recipes=NAMES, in_domain=("everyday",), out_of_domain=(), seeds=(0, 1, 2, 3))
    for trial in plan(study):
        _write_own_items(tmp_path, trial, study)
    limited = study.model_copy(update={"evaluate": EvaluateSpec(limit=400)})
    (power,) = power_of(tmp_path, limited, plan(limited), {"everyday": 4000})
    assert power.noise.of_pair.excess > 0
    assert power.floor is not None
    assert power.floor == pytest.approx(2.8 * power.on_items.excess**0.5, rel=0.05)
    assert power.seeds_for(0.95 * power.floor) is None
    assert power.seeds_for(0.95 * power.floor, all_items=True) is not None
    assert power.on_all_items is not None
    assert power.on_all_items.excess == pytest.approx(power.on_items.excess / 10)
    told = sentences([power], wished=95 * power.floor)[-1]
    assert (
        f"is out of reach of any number of seeds, since 400 items set a limit of {100 * power.floor:.2f} points."
        in told
    )
    assert re.search("With all items, 4,000 items, it takes [a-z0-9]+ seeds?, all run anew.$", told)
    (every,) = power_of(tmp_path, study, plan(study), {"everyday": 400})
    assert sentences([every], wished=95 * power.floor)[-1].endswith(
        "All items are scored already; more tasks would help."
    )


def _write_own_items(root: Path, trial: Trial, study: Study) -> None:
    of_recipe = np.random.default_rng(sum(map(ord, trial.recipe.name)))
    of_seed = np.random.default_rng([trial.seed, sum(map(ord, trial.recipe.name))])
    ease = of_recipe.normal(size=400) + 0.3 * of_seed.normal(size=400)
    scores = (ease > 0).astype(float)
    record = make_record(trial, study, values={"everyday": float(scores.mean())})
    frame: pd.DataFrame = items_of(record)
    frame["score"] = frame["acc,none"] = scores
    frame["correct"] = scores == 1
    Store(root / "results").write(Outcome(record, frame))


def test_other_tasks_out_of_domain_leave_the_domain_out(tmp_path: Path) -> None:
    write(tmp_path, make_study(recipes=NAMES, name="other", out_of_domain=()))
    study = make_study(recipes=NAMES)
    (power,) = power_of(tmp_path, study, plan(study))
    assert (power.of, power.pilot.study) == (Domain.IN, "other")
    assert sentences([power])[-1].endswith("No records tell the noise out-of-domain.")
    write(tmp_path, make_study(recipes=NAMES, name="further", budgets=("120000",)))
    assert [(p.of, p.pilot.study) for p in power_of(tmp_path, study, plan(study))] == [
        (Domain.IN, "other"), (Domain.OUT, "further"),
    ]  # fmt: skip


def test_records_without_noise_are_passed_over(tmp_path: Path) -> None:
    """Rows that are equal at every seed tell nothing, however near they are."""
    study = make_study(recipes=NAMES, in_domain=("everyday",), out_of_domain=())
    store = Store(tmp_path / "results")
    for trial in plan(study):
        store.write(Outcome(make_record(trial, study, values={"everyday": 0.5})))
    assert power_of(tmp_path, study, plan(study)) == []
    write(tmp_path, study.model_copy(update={"name": "further"}))
    assert [power.pilot.study for power in power_of(tmp_path, study, plan(study))] == ["further"]


def test_the_promised_power_is_kept() -> None:
    """A study of 60 items a task, planned by the noise of 30: four of five find the difference that it was promised.

    Simulated from crossed normal effects of rows by seeds, rows by items and what is left, with the tests of a report.
    """
    rows, seeds, tasks, items, by_seed, by_item, rest = 4, 3, 2, 60, 0.02, 0.1, 0.2
    in_pilot = tasks * items / 2
    pilot = stats.PairNoise(
        by_seed**2 + rest**2 / in_pilot, rest**2 / in_pilot, 2 * by_item**2 / in_pilot, tasks * (items - 1)
    )
    effect = stats.detectable_effect(pilot.on(2), seeds=seeds, rows=rows)
    assert effect is not None
    draw, found, replications = np.random.default_rng(7), 0, 2500
    for _ in range(replications):
        scores = by_seed * draw.normal(size=(rows, seeds, 1, 1)) + by_item * draw.normal(size=(rows, 1, tasks, items))
        scores = scores + rest * draw.normal(size=(rows, seeds, tasks, items))
        scores[0] += effect
        means, pair = scores.mean(axis=(2, 3)), scores[0] - scores[1]
        by_task = [stats.TaskItems(pair[:, task]) for task in range(tasks)]
        p = stats.difference(means[0] - means[1], by_task, stats.seed_noise(means)).p
        found += p is not None and p < 0.05
    assert found / replications == pytest.approx(0.80, abs=0.03)


def test_as_data_has_what_the_page_says() -> None:
    page = (REPOSITORY / "reports" / "README.md").read_text().split("| key of `power` |")[1].split("\n\n")[0]
    named = {
        name for row in page.splitlines()[2:] for name in row.split("|")[1].replace("`", "").replace(",", "").split()
    }
    (power, *_) = kept("smollm2")
    data = power.as_data(0.5)
    assert set(data) == named
    noise = page.split("| `noise` |")[1]
    assert all(f"`{key}`" in noise for key in data["noise"])
    assert all(f"`{key}`" in page.split("| `wished` |")[1] for key in data["wished"])
    assert data["wished"] == {"effect": 0.005, "seeds": 10, "added_trials": 35}
