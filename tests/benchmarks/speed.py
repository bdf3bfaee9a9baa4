"""Every figure of speed and memory that the project claims, measured side by side.

    python tests/benchmarks/speed.py                 # all of it
    python tests/benchmarks/speed.py layer scoring   # by name
    python tests/benchmarks/speed.py --json          # for a machine

Each benchmark is a module of this folder with ``run(rounds)`` that yields rows. A figure is the median of at least five
rounds in which ours and the other take turns, with the smallest and the largest beside it. Nothing is asserted: the
last column says whether the figure is what was asked for.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs as a file

from rich.console import Console
from rich.table import Table

from tests.benchmarks.side_by_side import Row

NAMES = (
    "layer", "bfloat16", "scoring", "training", "scheduling", "records", "memory", "routers", "stacked", "flex",
    "embedded",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmarks named by ``arguments`` (the command line's, by default) and print their rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which; all by default: {', '.join(NAMES)}")
    parser.add_argument("--json", action="store_true", help="a list of rows instead of a table")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each way gets (default 5)")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in NAMES]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    rows = list(_measured(options.names or NAMES, options.rounds))
    if options.json:
        print(json.dumps([row.to_dict() for row in rows], indent=1))
        return
    Console(width=None if sys.stdout.isatty() else 170, highlight=False).print(_table(rows))


def _measured(names: Sequence[str], rounds: int) -> Iterator[Row]:
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        for row in importlib.import_module(f"tests.benchmarks.{name}").run(rounds):
            print(f"  {row.quantity}: {_ratio(row) or _number(row.ours, row.unit)}", file=sys.stderr, flush=True)
            yield row


def _table(rows: list[Row]) -> Table:
    table = Table()
    for column in ("benchmark", "quantity", "ours", "against", "", "ratio [spread]", "rounds", "wanted", "note"):
        right = column in {"ours", "", "rounds"}
        table.add_column(column, justify="right" if right else "left")
    for row in rows:
        holds = {None: "", True: " yes", False: " NO"}[row.holds]
        table.add_row(
            row.benchmark, row.quantity, _number(row.ours, row.unit), row.against,
            "" if row.other is None else _number(row.other, row.unit),
            _ratio(row), str(row.rounds), f"{row.wanted}{holds}", row.note,
        )  # fmt: skip
    return table


def _number(value: float, unit: str) -> str:
    if unit == "s" and value < 1:
        return f"{1000 * value:.3g} ms"
    return f"{value:,.4g} {unit}".rstrip()


def _ratio(row: Row) -> str:
    if row.ratio is not None:
        return f"{row.ratio:.2f}x [{row.low:.2f}, {row.high:.2f}]"
    return f"[{row.low:.3g}, {row.high:.3g}]" if row.rounds > 1 else ""


if __name__ == "__main__":
    main()
