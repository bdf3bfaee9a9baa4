"""How numbers, parameters, conditions and hardware are printed in a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mosld_bench.format import counted, listed
from mosld_bench.records.scale import MISSING as MISSING
from mosld_bench.records.scale import SHARE
from mosld_bench.spec.budget import Native
from mosld_bench.spec.trial import Condition

#: Rows, recipes or tasks that one sentence names; nobody reads more, and all of them stand in a table.
MOST_NAMED = 12


def named(titles: Sequence[str], noun: str = "") -> str:
    """The titles in a sentence; of very many the first ones and how many more, of the ``noun`` if there is one."""
    return listed(titles, most=MOST_NAMED, noun=noun)


def percent(value: float | None, *, sign: bool = False) -> str:
    """A fraction in per cent: 0.685 -> '68.5', with ``sign`` '+68.5'. A true minus, no signed zero, and – for None."""
    return SHARE.text(value, sign=sign)


def count(value: float | None) -> str:
    """A whole number with commas; – for None."""
    return MISSING if value is None else f"{value:,.0f}"


def interval(low: float | None, high: float | None, between: str = " to ") -> str:
    """An interval of fractions in signed per cent; – where an end is None."""
    if low is None or high is None:
        return MISSING
    return f"{percent(low, sign=True)}{between}{percent(high, sign=True)}"


def p_value(p: float | None) -> str:
    """Three decimals, or '<0.001'; – for None."""
    return MISSING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def margin_label(points: float) -> str:
    """A margin in points: '1 point', '0.5 points'."""
    return f"{points:g} point{'' if points == 1 else 's'}"


def parameter_label(value: Any) -> str:
    """A recipe's parameter: whole numbers of a list by hyphens (2-4-6-8), other lists by commas; – for None."""
    if isinstance(value, list | tuple):
        return ("-" if all(isinstance(item, int) for item in value) else ", ").join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return MISSING if value is None else str(value)


_SETTINGS = {"mixture": "mixture", "single": "single task", "frozen": "frozen", "counted": "counted only"}


def setting_label(setting: str) -> str:
    """A setting in words: 'single task' for 'single'."""
    return _SETTINGS.get(setting, setting)


def suffix(condition: Condition) -> str:
    """The end of a label, with a comma before it: what a study has several of, or is not usual; else empty.

    Model, general items, training items of a task, and that rows are at the rates that came second in a search.
    """
    model = f", {condition.model.rsplit('/', 1)[-1]}" if condition.model else ""
    general = f", {condition.general:,} general items" if condition.general else ""
    items = f", {condition.items:,} items a task" if condition.items else ""
    return model + general + items + (", runner-up learning rates" if condition.rate == "runner_up" else "")


def amounts(condition: Condition) -> dict[str, int]:
    """The columns of a CSV for a block's general items, and where a study has several amounts, its items of a task."""
    return {"general_items": condition.general} | ({"task_items": condition.items} if condition.items else {})


def short_label(condition: Condition) -> str:
    """Within a sentence: 'mixture, 60,000 parameters' and the suffix."""
    return f"{setting_label(condition.setting)}, {condition.budget.label}{suffix(condition)}"


def block_label(condition: Condition) -> str:
    """As a heading: 'Mixture, budget 60,000 parameters' and the suffix."""
    label = condition.budget.label
    size = f"budget {label}" if condition.budget.sets_size else f"equal {label}"
    if isinstance(condition.budget, Native):
        size = "not matched in size"
    return f"{setting_label(condition.setting).capitalize()}, {size}{suffix(condition)}"


def row_title(title: str, condition: Condition) -> str:
    """A recipe's title as the title of a row; an untrained model stands in no block and carries the suffix itself."""
    return title + (suffix(condition) if condition.setting == "frozen" else "")


def hardware_label(hardware: Any, each: str = " a trial") -> str:
    """The hardware that a record notes (`provenance.hardware`) in words; ``each``: what has so many threads."""
    if not isinstance(hardware, dict):
        return "unrecorded hardware"
    memory, gpus = hardware.get("memory_bytes"), hardware.get("gpus", 1)
    parts = [
        f"{f'{gpus} × ' if gpus > 1 else ''}{hardware['gpu']}" if hardware.get("gpu") else "",
        f"{hardware.get('cpu') or 'an unnamed CPU'}{' without bfloat16' if hardware.get('bfloat16') is False else ''}",
        f"{hardware['cores']} cores" if hardware.get("cores") else "",
        f"{counted(hardware['threads'], 'thread')}{each}" if hardware.get("threads") else "",
        f"{memory / 2**30:.0f} GiB" if memory else "",
    ]
    return ", ".join(part for part in parts if part)
