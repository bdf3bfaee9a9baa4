"""The section Exposure: how often trials saw each training item, where settings or tasks differ in it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Section, paragraph, section
from mosld_bench.reporting.labels import MISSING, setting_label
from mosld_bench.reporting.table import Column, Line, Table

UNEVEN = 1.5  # times: the most exposures over the least, above which the table is shown

#: Task -> setting -> how often each of its training items was seen, trial by trial.
Exposures = dict[str, dict[str, list[float]]]


def exposure(analysis: Analysis) -> Section | None:
    """Told only where a reader could be misled: with two settings, or tasks seen unequally often."""
    exposures = _exposures(analysis)
    if not exposures:
        return None
    times = [value for by_setting in exposures.values() for values in by_setting.values() for value in values]
    uneven = max(times) > UNEVEN * min(times)
    if not uneven and len(analysis.settings) < 2:
        return None
    tokens = [record.train_info.tokens for record in analysis.records if record.train_info]
    return section(
        "Exposure",
        paragraph(_length(analysis), f" A trial saw {min(tokens):,} to {max(tokens):,} tokens, padding left out."),
        _table(analysis, exposures) if uneven else None,
        appendix=True,
    )


def _exposures(analysis: Analysis) -> Exposures:
    """Of the in-domain tasks that were trained on, in the order of the study."""
    exposures: Exposures = {}
    for task in analysis.study.in_domain:
        for row in analysis.trained:
            for record in row.records:
                if record.train_info and task in record.train_info.exposures:
                    times = record.train_info.exposures[task]
                    exposures.setdefault(task, {}).setdefault(row.setting, []).append(times)
    return exposures


def _length(analysis: Analysis) -> str:
    """What the length of training means for a task that is trained alone."""
    if analysis.study.train and analysis.study.train.steps is None:
        return "Trials pass over their training items equally often, so a task trained alone gets fewer steps."
    return (
        "Trials have the same number of steps, so a task trained alone is seen more often than in the "
        "mixture, a small one above all; part of a difference between the settings is this."
    )


def _table(analysis: Analysis, exposures: Exposures) -> Table:
    settings = [setting for setting in analysis.settings if any(setting in times for times in exposures.values())]
    lines = [
        Line.of(analysis.title(task), *(_range(times.get(setting, [])) for setting in settings))
        for task, times in exposures.items()
    ]
    numbers = [
        {"task": task, "setting": setting, "least": min(times[setting]), "most": max(times[setting])}
        for task, times in exposures.items()
        for setting in settings
        if setting in times
    ]
    return Table(
        "exposure",
        "Exposures: how often each training item of a task was seen (over all trials of the setting).",
        (Column("Task", "left"), *(Column(setting_label(setting).capitalize()) for setting in settings)),
        tuple(lines),
        pd.DataFrame(numbers),
    )


def _range(values: Sequence[float]) -> str:
    """'1.0 to 2.5', one number where both ends are printed alike, – for no value."""
    if not values:
        return MISSING
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"
