"""The numbers that the MoSLD paper prints, as data, and where they contradict each other or a count.

The tables are CSV files, copied digit by digit with their slips; `slips` recomputes what can be recomputed, so that a
report can quote a number and say what is wrong with it. ``protocol.yaml`` beside them holds what the paper says about
how the numbers were made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosld_bench.errors import BadFileError, UnknownNameError
from mosld_bench.format import counted, listed
from mosld_bench.spec.yaml_file import Strict, parse, read_yaml

if TYPE_CHECKING:
    import pandas as pd

FILES = ("table1_main", "table2_location", "table3_uncommon", "table5_parameters", "table6_rank", "table7_scaling")
MODEL = "llama2-7b"  # of every table that names no other
AVERAGE = "average"
RANK = 8  # of every table but the sixth
_RECIPES = {"mosld-a": "mosld"}
# Every printed score is off by up to half of its last digit, so their mean is too; so is the printed mean.
_ROUNDING = Decimal("0.01")


class Items(Strict):
    """Items of a task as the paper states them; ``scored`` are those that its numbers show, where they differ."""

    train: int
    test: int
    shown: int | None = None

    @property
    def scored(self) -> int:
        return self.shown or self.test


class Protocol(Strict):
    """How the paper made its numbers; None where it does not say."""

    models: dict[str, str]
    study: dict[str, Any]
    tables: dict[str, dict[str, Any]]
    params: dict[str, Any]
    recipes: dict[str, dict[str, Any]]
    other: dict[str, Any]
    tasks: dict[str, Items]


@dataclass(frozen=True)
class Published:
    """What the paper prints: its tables with every number as the text that is printed, and its protocol."""

    protocol: Protocol
    tables: Mapping[str, pd.DataFrame]  # by the names in `FILES`


def load(folder: Path) -> Published:
    """Read all of it from ``folder``. Raises BadFileError for a file that is missing or malformed."""
    protocol = parse(Protocol, folder / "protocol.yaml", read_yaml(folder / "protocol.yaml"))
    return Published(protocol, {name: _read_table(folder / f"{name}.csv") for name in FILES})


def scores(published: Published, name: str) -> pd.DataFrame:
    """One of `FILES` as a frame: recipe, setting, task, accuracy (fraction), rank and model.

    ``task`` is `AVERAGE` for printed averages, ``rank`` is empty where the table does not give it, and so is
    ``setting`` in Table 5. Raises UnknownNameError.
    """
    import pandas as pd

    frame = _printed(published, name)
    frame["accuracy"] = pd.to_numeric(frame["accuracy"]) / 100
    frame["rank"] = pd.to_numeric(frame["rank"]).astype("Int64")
    return frame


def averages(frame: pd.DataFrame) -> dict[tuple[str, str], float]:
    """(recipe, setting) -> mean of its printed scores, for rows whose printed average is another number."""
    found = {}
    for (recipe, setting), rows in frame.groupby(["recipe", "setting"]):
        own, printed = rows[rows["task"] != AVERAGE]["accuracy"], rows[rows["task"] == AVERAGE]["accuracy"]
        if len(own) and len(printed) and abs(float(own.mean()) - float(printed.iloc[0])) > float(_ROUNDING) / 100:
            found[str(recipe), str(setting)] = float(own.mean())
    return found


def _printed(published: Published, name: str) -> pd.DataFrame:
    """As `load`, with every number as the text that is printed (accuracies in percent)."""
    frame = _table(published, name).rename(columns={"method": "recipe", "average_accuracy": "accuracy"})
    frame["recipe"] = frame["recipe"].replace(_RECIPES)
    for column, value in (("setting", None), ("task", AVERAGE), ("rank", None), ("model", MODEL)):
        if column not in frame:
            frame[column] = value
    return frame[["recipe", "setting", "task", "accuracy", "rank", "model"]]


def _table(published: Published, name: str) -> pd.DataFrame:
    if name not in FILES:
        raise UnknownNameError("published table", name, FILES)
    return published.tables[name]


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_csv(path, dtype=str)
    except FileNotFoundError:
        raise BadFileError(f"{path} does not exist; it holds numbers that the paper prints.") from None


@dataclass(frozen=True)
class Slip:
    """Something printed that cannot be right; ``what`` is a sentence with the printed and the right value."""

    table: str
    what: str
    file: str


def slips(published: Published, counts: Mapping[str, int] | None = None) -> list[Slip]:
    """Every slip of the printed tables, in the order of the tables. Raises BadFileError for a missing table.

    All are computed from the files but the last, which the files cannot show. ``counts`` are exact numbers of
    trainable parameters by recipe, `parameter_counts` if not given.
    """
    found = []
    for name in FILES:
        number = name[len("table") : name.index("_")]
        what = [*_averages(published, name), *_cells(published, name)]
        if name == "table5_parameters":
            what += _table5(published, parameter_counts() if counts is None else counts)
        if name == "table7_scaling":
            what.append("prints LoRA's results at 7B in the row of MoLoRA; MoLoRA's own are in Table 1.")
        found += [Slip(f"Table {number}", f"Table {number} {text}", f"{name}.csv") for text in what]
    return found


def _averages(published: Published, name: str) -> Iterator[str]:
    """Printed averages that the printed scores of their row do not give."""
    for (recipe, setting), row in _printed(published, name).groupby(["recipe", "setting"], sort=False):
        scores = [Decimal(text) for text in row["accuracy"][row["task"] != AVERAGE]]
        for text in row["accuracy"][row["task"] == AVERAGE]:
            mean = sum(scores, Decimal()) / len(scores) if scores else Decimal(text)
            if abs(Decimal(text) - mean) > _ROUNDING:
                yield (
                    f"prints {text} as the {setting} average of {recipe}; the mean of its "
                    f"{counted(len(scores), 'score')} is {_rounded(mean, 2)}."
                )


def _cells(published: Published, name: str) -> Iterator[str]:
    """Cells of another table that Table 1 has too, with another number.

    Table 3 mixes other tasks, so that only its single-task cells are in Table 1; Table 6 shares rank 8.
    """
    if name not in {"table2_location", "table3_uncommon", "table6_rank"}:
        return
    first = _table1(published)
    for row in _printed(published, name).fillna("").itertuples():
        key = str(row.recipe), str(row.setting), str(row.task)
        other_tasks = name == "table3_uncommon" and (row.setting == "mixture" or row.task == AVERAGE)
        if key not in first or other_tasks or row.rank not in {"", str(RANK)}:
            continue
        if Decimal(str(row.accuracy)) != Decimal(first[key]):
            yield (
                f"prints {row.accuracy} for {row.recipe} on {row.task} ({row.setting}), where Table 1 has {first[key]}."
            )


def _table1(published: Published) -> dict[tuple[str, str, str], str]:
    """(recipe, setting, task) -> what Table 1 prints."""
    frame = _printed(published, "table1_main")
    keys = zip(frame["recipe"], frame["setting"], frame["task"], strict=True)
    return dict(zip(keys, frame["accuracy"], strict=True))


def _table5(published: Published, counts: Mapping[str, int]) -> Iterator[str]:
    first = _table1(published)
    table = _table(published, "table5_parameters").set_index("method")
    for recipe, text in zip(table.index, table["average_accuracy"], strict=True):
        mixture, single = (first[recipe, setting, AVERAGE] for setting in ("mixture", "single"))
        if text != mixture:
            whose = "its single-task average" if text == single else "no average of Table 1"
            yield f"prints {text} for {recipe}, {whose}, beside mixture averages; the mixture average is {mixture}."
    forward, trainable = table["forward_params_billion_as_printed"], table["trainable_params_billion_as_printed"]
    wrong = [recipe for recipe in counts if trainable[recipe] != billions(counts[recipe])]
    inflated = [recipe for recipe in wrong if trainable[recipe] == as_printed(counts[recipe])]
    if inflated:
        yield (
            f"prints {listed([trainable[r] for r in inflated])} B trainable parameters for {listed(inflated)}; the "
            f"digits are right and the unit is 100 times too large: {listed([f'{counts[r]:,}' for r in inflated])}, "
            f"or {listed([in_units(counts[r]) for r in inflated])}."
        )
    for recipe in wrong:
        if recipe not in inflated:
            yield f"prints {trainable[recipe]} B trainable parameters for {recipe}; there are {counts[recipe]:,}."
    for recipe, added in counts.items():
        right = Decimal(forward["full"]) + Decimal(added) / 10**9
        if abs(Decimal(forward[recipe]) - right) > Decimal("0.001"):  # both forward counts are rounded
            right = _rounded(right, 3)
            swap = ", with two digits swapped" if sorted(str(right)) == sorted(forward[recipe]) else ""
            yield (
                f"prints {forward[recipe]} B parameters in the forward pass of {recipe}{swap}; the model's "
                f"{forward['full']} B and {added:,} trainable ones make {right} B."
            )


def printed_counts(published: Published) -> dict[str, tuple[str, str]]:
    """Recipe -> its trainable parameters and all those of the forward pass, in billions as Table 5 prints them."""
    table = _table(published, "table5_parameters").set_index("method")
    trainable, forward = table["trainable_params_billion_as_printed"], table["forward_params_billion_as_printed"]
    return {recipe: (trainable[recipe], forward[recipe]) for recipe in table.index}


def parameter_counts() -> dict[str, int]:
    """Trainable parameters of Table 5's rows at LLaMA2-7B: q and v, rank 8, five experts a layer on average, routers.

    >>> parameter_counts()
    {'lora': 4194304, 'mola': 22282240, 'mosld': 13893632}
    """
    width, layers, modules = 4096, 32, 2
    experts = sum((2, 4, 6, 8)) * layers // 4  # over all layers
    one = RANK * width  # A, and B too, as q and v are square
    return {
        "lora": modules * layers * 2 * one,
        "mola": modules * experts * (2 * one + width),
        "mosld": modules * (layers * one + experts * (one + width)),
    }


def as_printed(count: int) -> str:
    """The digits that Table 5 has for ``count`` parameters, under a unit that is 100 times too large.

    >>> as_printed(4_194_304), as_printed(22_282_240), as_printed(13_893_632)
    ('0.419', '2.228', '1.389')
    """
    return str(_rounded(Decimal(count) / 10**7, 3))


def in_units(count: int) -> str:
    """``count`` parameters with as many digits as Table 5 has, in the right units.

    >>> in_units(4_194_304)
    '0.00419 B = 4.19 M'
    """
    return f"{_rounded(Decimal(count) / 10**9, 5)} B = {_rounded(Decimal(count) / 10**6, 2)} M"


def billions(count: int) -> str:
    """``count`` in billions, with as many decimals as Table 5 has."""
    return str(_rounded(Decimal(count) / 10**9, 3))


def _rounded(value: Decimal, places: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
