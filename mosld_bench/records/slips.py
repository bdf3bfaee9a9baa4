"""Where the tables of the MoSLD paper contradict each other or a count, so that a report can say so of what it quotes.

All slips are computed from the tables but the last, which they cannot show. None is mended: the tables stay as printed,
with a cell of Table 7 as Table 4 has it beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from mosld_bench.format import counted, listed
from mosld_bench.records.published import (
    AVERAGE,
    PARAMETERS_TABLE,
    RANK,
    TABLES,
    Published,
    as_printed,
    billions,
    in_units,
    rounded,
)

_FORWARD_ROUNDING = Decimal("0.001")  # billions; the two forward counts that are compared are both rounded


@dataclass(frozen=True)
class Slip:
    """Something printed that cannot be right: a sentence with the printed and the right value.

    ``name`` is that of its table in `TABLES`.
    """

    name: str
    sentence: str

    @property
    def number(self) -> str:
        """As the paper calls the table: 'Table 5'."""
        return table_number(self.name)


def table_number(name: str) -> str:
    """'Table 5' for 'table5_parameters'."""
    return f"Table {name.removeprefix('table').split('_')[0]}"


def slips(published: Published, counts: Mapping[str, int] | None = None) -> list[Slip]:
    """Every slip of the printed tables, in the order of the tables.

    ``counts`` are exact numbers of trainable parameters by recipe, `parameter_counts` if not given.
    """
    every: list[Slip] = []
    for name in TABLES:
        clauses = [*_averages(published, name), *_cells(published, name)]
        if name == PARAMETERS_TABLE:
            exact = parameter_counts() if counts is None else counts
            clauses += [*_parameters_averages(published), *_trainable(published, exact), *_forward(published, exact)]
        if name == "table7_scaling":
            clauses.append("prints LoRA's results at 7B in the row of MoLoRA; MoLoRA's own are in Table 1.")
        every += [Slip(name, f"{table_number(name)} {clause}") for clause in clauses]
    return every


def _averages(published: Published, name: str) -> Iterator[str]:
    """Printed averages that the printed scores of their row do not give, and scores that are to blame for it."""
    for average in published.averages(name):
        printed = average.printed
        for score in average.slips:
            yield (
                f"prints {score.text} for {score.recipe} on {score.task} ({score.setting}, {score.model}), where Table "
                f"4 has {score.table4}; only {score.table4} gives the printed average, {printed.text}."
            )
        if average.slipped and not average.slips:
            yield (
                f"prints {printed.text} as the {printed.setting} average of {printed.recipe}; the mean of its "
                f"{counted(len(average.scores), 'score')} is {rounded(average.mean, 2)}."
            )


def _cells(published: Published, name: str) -> Iterator[str]:
    """Cells of another table that Table 1 has too, with another number.

    Table 3 mixes other tasks, so that only its single-task cells are in Table 1; Table 6 shares rank 8.
    """
    if name not in {"table2_location", "table3_uncommon", "table6_rank"}:
        return
    first = _table1(published)
    for score in published.scores(name):
        same = first.get((score.recipe, score.setting, score.task))
        other_tasks = name == "table3_uncommon" and (score.setting == "mixture" or score.task == AVERAGE)
        if same is None or other_tasks or score.rank not in {None, RANK}:
            continue
        if score.percent != Decimal(same):
            yield f"prints {score.text} for {score.recipe} on {score.task} ({score.setting}), where Table 1 has {same}."


def _table1(published: Published) -> dict[tuple[str, str | None, str], str]:
    """(recipe, setting, task) -> what Table 1 prints."""
    return {(score.recipe, score.setting, score.task): score.text for score in published.scores("table1_main")}


def _parameters_averages(published: Published) -> Iterator[str]:
    """Averages of Table 5 that are not the mixture averages of Table 1."""
    first = _table1(published)
    for score in published.scores(PARAMETERS_TABLE):
        mixture, single = (first[score.recipe, setting, AVERAGE] for setting in ("mixture", "single"))
        if score.text != mixture:
            whose = "its single-task average" if score.text == single else "no average of Table 1"
            yield (
                f"prints {score.text} for {score.recipe}, {whose}, beside mixture averages; the mixture average is "
                f"{mixture}."
            )


def _trainable(published: Published, counts: Mapping[str, int]) -> Iterator[str]:
    """Trainable parameters of Table 5 that are not the exact ``counts``."""
    printed = {recipe: count.trainable for recipe, count in published.counts.items()}
    wrong = [recipe for recipe in counts if printed[recipe] != billions(counts[recipe])]
    inflated = [recipe for recipe in wrong if printed[recipe] == as_printed(counts[recipe])]
    if inflated:
        yield (
            f"prints {listed([printed[r] for r in inflated])} B trainable parameters for {listed(inflated)}; the "
            f"digits are right and the unit is 100 times too large: {listed([f'{counts[r]:,}' for r in inflated])}, "
            f"or {listed([in_units(counts[r]) for r in inflated])}."
        )
    for recipe in wrong:
        if recipe not in inflated:
            yield f"prints {printed[recipe]} B trainable parameters for {recipe}; there are {counts[recipe]:,}."


def _forward(published: Published, counts: Mapping[str, int]) -> Iterator[str]:
    """Parameters of the forward pass in Table 5 that are not the model's and the exact ``counts`` together."""
    model = published.counts["full"].forward
    for recipe, added in counts.items():
        printed, right = published.counts[recipe].forward, Decimal(model) + Decimal(added) / 10**9
        if abs(Decimal(printed) - right) > _FORWARD_ROUNDING:
            right = rounded(right, 3)
            swap = ", with two digits swapped" if sorted(str(right)) == sorted(printed) else ""
            yield (
                f"prints {printed} B parameters in the forward pass of {recipe}{swap}; the model's "
                f"{model} B and {added:,} trainable ones make {right} B."
            )


def parameter_counts() -> dict[str, int]:
    """Trainable parameters of Table 5's rows at LLaMA2-7B: q and v, rank 8, five experts a layer on average, routers.

    >>> parameter_counts()
    {'lora': 4194304, 'mola': 22282240, 'mosld': 13893632}
    """
    width, layers, modules = 4096, 32, 2
    experts = sum((2, 4, 6, 8)) * layers // 4  # over all layers
    factor = RANK * width  # A, and B too, as q and v are square
    return {
        "lora": modules * layers * 2 * factor,
        "mola": modules * experts * (2 * factor + width),
        "mosld": modules * (layers * factor + experts * (factor + width)),
    }
