"""A profile in the terminal: its table, and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mosld_bench.format import digits, short_count
from mosld_bench.records.profile import Entry, Phase, Profile


def profile_table(profile: Profile, width: int = 160) -> Table:
    """One line a recipe. Where ``width`` characters do not hold all: short counts, then no ranges and fewer columns."""
    for short in (False, True):
        table = _table(profile, short=short, few=False)
        if Console(width=1000).measure(table).maximum <= width:
            return table
    return _table(profile, short=True, few=True)


def profile_sentences(profile: Profile) -> list[str]:
    """How to read the table."""
    load, gap = profile.load, profile.gap
    sentences = [
        f"Medians over {load.rounds} rounds. FLOPs are a token's; train/s and decode/s are tokens a second; × is time "
        f"against the frozen base, in training against {profile.reference}, each within a round.",
        f"Training: {load.batch} texts of {load.prompt_tokens} tokens. Prompts: {load.prompt_tokens} tokens, "
        f"{load.streams} at a time, {load.new_tokens} tokens decoded after each. MiB: {profile.memory_note}.",
        "Active parameters enter one token's output. The FLOPs are those computed: they include the experts that a "
        "router did not pick.",
    ]
    if gap is not None:
        sentences.append(f"Counted and calculated FLOPs differ by at most {gap:.2%}.")
    return sentences


class _Column(NamedTuple):
    """A column: its title, whether it stays where few fit, and its cell of an entry ('' where there is none)."""

    title: str
    stays: bool
    cell: Callable[[Entry], str]


def _table(profile: Profile, *, short: bool, few: bool) -> Table:
    """``short``: counts as 59.9k; ``few``: columns, and no ranges. A column without a value is left out."""
    weights = "random weights, " if profile.random_weights else ""
    table = Table(
        title=f"{profile.study}: {profile.model.label}, {weights}{profile.dtype} on {profile.device}",
        box=None if few else SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    cells: list[list[str]] = []
    for title, stays, cell in _columns(profile, short=short, ranges=not few):
        texts = [cell(entry) for entry in profile.entries]
        if any(texts) and (stays or not few):
            table.add_column(title, justify="left" if title == "recipe" else "right", no_wrap=True)
            cells.append(texts)
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    return table


def _columns(profile: Profile, *, short: bool, ranges: bool) -> list[_Column]:
    unit, unit_name = profile.flop_unit

    def count(value: int) -> str:
        return short_count(value) if short else f"{value:,}"

    def rate(phase: Phase) -> Callable[[Entry], str]:
        def cell(entry: Entry) -> str:
            spread = profile.rate(entry, phase)
            return digits(spread.median) if spread else ""

        return cell

    def times(phase: Phase) -> Callable[[Entry], str]:
        def cell(entry: Entry) -> str:
            spread = profile.relative(entry, phase)
            if not spread:
                return ""
            return f"{spread.median:.2f}" + (f" ({spread.low:.2f}–{spread.high:.2f})" if ranges else "")

        return cell

    def mib(values: Sequence[int]) -> str:
        return f"{median(values) / 2**20:,.0f}" if values else ""

    def step_flops(entry: Entry) -> str:
        return f"{entry.flops.step / unit:,.2f}" if entry.flops.step is not None else ""

    return [
        _Column("recipe", True, lambda entry: entry.recipe.name),
        _Column("trainable", False, lambda entry: count(entry.fit.trainable)),
        _Column("active", True, lambda entry: count(entry.active)),
        _Column("stored", False, lambda entry: count(entry.stored)),
        _Column(unit_name, True, lambda entry: f"{entry.flops.forward / unit:,.2f}"),
        _Column("training", False, step_flops),
        _Column("train/s", True, rate("train")),
        _Column(f"×{profile.reference}", True, times("train")),
        _Column("MiB", True, lambda entry: mib(entry.train_memory)),
        _Column("prompt ms", True, lambda entry: digits(1e3 * median(entry.prompt))),
        _Column("×base", True, times("prompt")),
        _Column("decode/s", True, rate("decode")),
        _Column("×base", True, times("decode")),
        _Column("MiB decoding", False, lambda entry: mib(entry.decode_memory)),
    ]
