"""Blocks of a plan: which rows are compared, with how many common seeds, and what more seeds add."""

from __future__ import annotations

import numpy as np

from mosld_bench.reporting import stats
from mosld_bench.spec.block import Block, blocks_of
from mosld_bench.spec.selection import Selection
from tests.support.synthetic import RECIPES, make_study, make_trials

NAMES = ("base", "full", "lora", "moe-lora", "mola", "mosld")


def blocks(*, recipes: tuple[str, ...] = NAMES, reference: str = "mosld", **changes: object) -> list[Block]:
    study = make_study(reference=reference, **changes)
    return blocks_of(study, make_trials(study, [RECIPES[name] for name in recipes]))


def uneven(seeds: dict[str, tuple[int, ...]], reference: str = "mosld") -> Block:
    """A block whose rows have these seeds."""
    study = make_study(reference=reference, seeds=sorted(set().union(*seeds.values())))
    trials = make_trials(study, [RECIPES[name] for name in seeds])
    (block,) = blocks_of(study, [trial for trial in trials if trial.seed in seeds[trial.recipe.name]])
    return block


def test_a_block_holds_the_trained_rows_of_one_condition() -> None:
    """Neither the untrained model, nor full fine-tuning, nor what stands alone is compared."""
    found = blocks(settings=("mixture", "single"), budgets=("60000", "120000"))
    assert [tuple(block.condition[:2]) for block in found] == [
        ("mixture", "60000"), ("single", "60000"), ("mixture", "120000"), ("single", "120000"),
    ]  # fmt: skip
    assert {tuple(block.rows) for block in found} == {NAMES[2:]}
    assert blocks(budgets=("native",)) == []
    assert blocks(recipes=("base", "full", "lora")) == []


def test_rows_are_compared_by_the_seeds_that_they_share_with_the_reference() -> None:
    block = uneven({"lora": (0, 1, 2), "moe-lora": (0,), "mola": (0, 1, 2), "mosl": (7,), "mosld": (0, 1, 2, 3)})
    assert (block.reference, block.seeds) == ("mosld", 3)
    assert block.common == {"lora": 3, "moe-lora": 1, "mola": 3, "mosl": 0}
    assert block.compared == ["lora", "mola", "mosld"]
    assert block.fewer == {1: ["moe-lora"]}


def test_without_the_reference_the_first_row_of_most_seeds_takes_its_place() -> None:
    block = uneven({"lora": (0,), "moe-lora": (0, 1), "mola": (0, 1)}, reference="mosld")
    assert (block.reference, block.seeds, block.compared) == ("moe-lora", 2, ["moe-lora", "mola"])


def test_degrees_of_freedom_are_those_of_the_report() -> None:
    """(rows - 1)(seeds - 1), and what rows of fewer seeds add: as the fit of rows and seeds leaves them."""
    cases: list[dict[str, tuple[int, ...]]] = [
        {"lora": (0, 1, 2), "mola": (0, 1, 2), "mosld": (0, 1, 2)},
        {"lora": (0, 1, 2), "mola": (0, 1), "moe-lora": (0,), "mosld": (0, 1, 2)},
        {"lora": (0, 1, 2, 3, 4), "mola": (1, 2, 3), "mosl": (0, 4), "mosld": (0, 1, 2, 3, 4)},
    ]
    for seeds in cases:
        block = uneven(seeds)
        table = np.array([[0.0 if seed in own else np.nan for seed in range(5)] for own in seeds.values()])
        table = table[:, ~np.isnan(table).all(axis=0)]
        noise = stats.seed_noise(table)
        assert noise is not None
        assert (len(block.compared) - 1) * (block.seeds - 1) + block.further_freedom == noise.freedom


def test_more_seeds_add_trials_to_the_rows_that_are_compared() -> None:
    block = uneven({"lora": (0, 1), "moe-lora": (0,), "mosld": (0, 1, 2)})
    added = block.added(5)
    assert [trial.recipe.name for trial in added] == ["lora"] * 3 + ["mosld"] * 2
    assert block.added(2) == []
    single = next(block for block in blocks(settings=("single",), seeds=(0,)))
    assert len(single.added(3)) == 2 * 4 * 6, "two more seeds of four recipes on six tasks"


def test_further_seeds_are_the_smallest_that_the_plan_lacks() -> None:
    assert uneven({"lora": (4, 1), "mosld": (1, 4)}).seeds_up_to(5) == [1, 4, 0, 2, 3]
    assert uneven({"lora": (0, 1), "mosld": (0, 1)}).seeds_up_to(1) == [0]


def test_parts_of_a_study_make_blocks_of_unlike_rows() -> None:
    study = make_study(
        reference="mosld",
        recipes=("lora", "mola", "mosld"),
        parts=(Selection(seeds=(0,)), Selection(recipes=("lora", "mosld"), seeds=(0, 1, 2))),
    )
    trials = [t for part in study.products() for t in make_trials(part, [RECIPES[name] for name in part.recipes])]
    (block,) = blocks_of(study, {trial.id: trial for trial in trials}.values())
    assert (block.compared, block.fewer) == (["lora", "mosld"], {1: ["mola"]})
