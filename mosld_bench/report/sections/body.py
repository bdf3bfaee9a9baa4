"""The sections of the report in their order: each function turns the analysis into plain data.

To add a section, write a function ``(Analysis) -> Section | None`` and put it into `SECTIONS`; its tables are
written as CSV and LaTeX without further ado.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mosld_bench.format import counted, listed
from mosld_bench.report import table as tabular
from mosld_bench.report.analysis import ALPHA, Analysis, Row
from mosld_bench.report.document import Block, Section, bullets, machine, paragraph, run, section
from mosld_bench.report.sections import cost as costs
from mosld_bench.report.sections import results as tables
from mosld_bench.report.sections.contamination import overlap_section
from mosld_bench.report.sections.profile import profile_section
from mosld_bench.report.sections.protocol import methods, protocol
from mosld_bench.report.sections.reproduction import reproduction

RISE = 0.05  # of the validation loss above its lowest: more than it moves by from one validation to the next


def results(analysis: Analysis) -> Section | None:
    """The main table, how to read it, and the differences to the study's reference."""
    if not analysis.study.trains:
        return None
    differences = tables.differences(analysis)
    return section(
        "Results",
        paragraph(
            run("main", "ref"),
            " gives every row",
            ", and " if differences else "",
            run("differences" if differences else "", "ref"),
            f" the differences to {analysis.reference}." if differences else ".",
        ),
        bullets(_reading(analysis)),
        *tables.main(analysis),
        differences
        or paragraph(
            f"No block holds {analysis.reference} beside another row with a common seed, so no differences are given."
        ),
        paragraph(run("What the tests cover. ", "bold"), _coverage(analysis)),
        paragraph(run("Length of training. ", "bold"), length) if (length := _length(analysis)) else None,
        tables.other_metrics(analysis),
    )


def _reading(analysis: Analysis) -> list[str]:
    sentences = []
    for block, _ in analysis.blocks():
        best, scored = analysis.best(block), analysis.scored(block)
        if best is None or len(scored) < 2:
            continue
        ordered = sorted(scored, key=lambda row: row.score or 0.0)
        untested = len(analysis.untested(block))
        tested = len(scored) - 1 - untested
        text = (
            f"not separated from {best.recipe.title}: {len(analysis.tied(block))} of the {tested} tested"
            if tested
            else "no two rows have two seeds in common, so nothing is tested"
        )
        sentences.append(
            f"{tabular.block_label(block)}: in-domain means run from {tabular.percent(ordered[0].score)} % "
            f"({ordered[0].recipe.title}) to {tabular.percent(ordered[-1].score)} % ({ordered[-1].recipe.title}); "
            f"{text}{f', {untested} not tested' if tested and untested else ''}.{_guessed(analysis, scored)}"
        )
    return sentences or ["No block has two rows of equal size or rank with all their in-domain tasks."]


def _guessed(analysis: Analysis, rows: Sequence[Row]) -> str:
    """The tasks on which no row does better than a guess: nothing there tells methods apart."""
    titles = []
    for task in analysis.task_names:
        metric, means = analysis.metric(task), [mean for row in rows if (mean := row.mean_sd(task)[0]) is not None]
        if metric and metric.chance is not None and means and max(means) <= metric.chance:
            titles.append(analysis.title(task))
    return f" No row is above chance on {listed(titles)}." if titles else ""


def _coverage(analysis: Analysis) -> str:
    text = (
        "The unit of the tests is the seed: rows are compared by the differences of their in-domain "
        f"means at equal seeds (Student's t, two-sided, Holm-corrected within a block, level {ALPHA:g}). "
        "This covers what varies with the seed; it does not cover the choice of test items or of tasks, "
        "and few seeds have little power, so that “not separated” does not mean “equal”. The highest row "
        "was picked by looking, which makes tests against it lean towards a difference."
    )
    spans = []
    for what, name in (("in_domain", "in-domain"), ("out_of_domain", "out-of-domain")):
        if errors := analysis.item_errors(what):
            low, high = tabular.percent(min(errors)), tabular.percent(max(errors))
            spans.append(f"{low if low == high else f'{low} to {high}'} points for one {name} mean")
    if spans:
        text += (
            f" The standard error over items is {listed(spans)}; rows are scored on the same items, so part of it "
            "cancels in their differences."
        )
    return text


def _length(analysis: Analysis) -> str:
    """Where training went on after the validation loss was at its lowest; the last step is what is scored."""
    risen: dict[str, dict[str, None]] = {}
    trials = over = 0
    for record in analysis.records:
        curve = record.train_info.curve if record.train_info else ()
        losses = [point.validation_loss for point in curve if point.validation_loss is not None]
        trials += len(losses) > 1
        if len(losses) > 1 and losses[-1] > (1 + RISE) * min(losses):
            over += 1
            trial = record.trial
            place = f"{analysis.title(trial.train_on[0])} alone" if trial.setting == "single" else "the mixture"
            risen.setdefault(place, {})[trial.recipe.title] = None
    if not trials:
        return ""
    where = f" ({'; '.join(f'{place}: {listed(list(titles))}' for place, titles in risen.items())})" if over else ""
    return (
        f"The last step is scored. There the validation loss was more than {100 * RISE:g} % above its lowest in "
        f"{over or 'none'} of {trials} trials{where}."
    )


def _length_note(analysis: Analysis) -> str:
    if analysis.study.train and analysis.study.train.steps is None:
        return "Trials pass over their training items equally often, so a task trained alone gets fewer steps."
    return (
        "Trials have the same number of steps, so a task trained alone is seen more often than in the "
        "mixture, a small one above all; part of a difference between the settings is this."
    )


def exposure(analysis: Analysis) -> Section | None:
    """Told only where a reader could be misled: two settings, or tasks seen unequally often."""
    table = costs.exposure(analysis)
    if table is None or table.frame is None:
        return None
    uneven = table.frame["most"].max() > 1.5 * table.frame["least"].min()
    if not uneven and len(analysis.settings) < 2:
        return None
    tokens = [record.train_info.tokens for record in analysis.records if record.train_info]
    return section(
        "Exposure",
        paragraph(
            _length_note(analysis),
            f" A trial saw {min(tokens):,} to {max(tokens):,} tokens, padding left out.",
        ),
        table if uneven else None,
    )


def cost(analysis: Analysis) -> Section:
    """Time and memory, and the budget audit."""
    if not analysis.study.trains:
        return section("Parameters", costs.audit(analysis))
    hardware = listed(_distinct(machine(record.meta_info.get("hardware")) for record in analysis.records))
    return section(
        "Cost and size",
        paragraph(
            f"Measured on {hardware}. Times are wall times of single trials and depend on what else the "
            "machine did; compare them only roughly."
        ),
        costs.cost(analysis),
        audit if (audit := costs.audit(analysis)).rows else None,
    )


def figures_paragraph(drawn: Sequence[tuple[str, str]], absent: Sequence[str]) -> Block:
    """What each figure (name, what it tells) shows, and why others are not there."""
    runs: list[str | dict[str, str]] = [run("Figures. ", "bold")]
    for i, (name, tells) in enumerate(drawn):
        runs += ["; " if i else "", run(name, "ref"), f" shows {tells}"]
    return paragraph(*runs, ". " if drawn else "", " ".join(absent))


def provenance(analysis: Analysis) -> Section:
    """Where every number comes from, and how to make it again."""
    metas, study = [record.meta_info for record in analysis.records], analysis.study
    commits = _distinct(str(meta["commit"])[:12] for meta in metas if meta.get("commit"))
    versions = _distinct(_versions(meta) for meta in metas)
    started = sorted(str(meta["started"]) for meta in metas if meta.get("started"))
    hours = sum(float(meta.get("seconds") or 0) for meta in metas) / 3600
    protocols = _distinct(trial.protocol for trial in analysis.trials)
    items = [
        f"Protocol {listed(protocols)}; {len(analysis.records)} records used, {len(analysis.trials)} "
        f"trials planned, {len(analysis.missing) or 'none'} of them without a record."
    ]
    if analysis.other_protocol:
        items.append(f"Left out: {counted(analysis.other_protocol, 'record')} made under another protocol.")
    if analysis.superseded:
        items.append(
            f"Left out: {counted(analysis.superseded, 'record')} of an earlier version of a recipe or of "
            "a cell run again."
        )
    taken = Counter(str(meta["taken_from"]) for meta in metas if meta.get("taken_from"))
    if taken:
        whose = listed([f"{counted(count, 'record')} of {name}" for name, count in taken.items()])
        items.append(f"Taken from other studies, which have the same trials: {whose}.")
    items.append(f"Commit: {', '.join(commits) or 'not recorded'}.")
    if analysis.dirty:
        items.append(
            f"{analysis.dirty} of {len(metas)} records were made with uncommitted changes in the working tree."
        )
    elif any(meta.get("dirty") is None for meta in metas):
        items.append("Whether the working tree was clean is not known for all records.")
    items += [f"Versions: {text}." for text in versions if text]
    items.append(f"Hardware: {'; '.join(_distinct(machine(meta.get('hardware')) for meta in metas))}.")
    if started:
        items.append(
            f"Run from {started[0][:10]} to {started[-1][:10]} (UTC), {hours:.1f} hours in all trials together."
        )
    sources = _distinct(_weights(meta["weights"]) for meta in metas if meta.get("weights"))
    items += [f"Weights: {source}." for source in sources]
    checkout = [f"git checkout {commits[0]}"] if len(commits) == 1 else []
    ordered = sorted(metas, key=lambda meta: str(meta.get("started", "")))
    commands = _distinct(meta["command"] for meta in ordered if meta.get("command")) or [
        f"mosld-bench run {study.name}"
    ]
    return section(
        "Provenance",
        bullets(items),
        paragraph("The records were made by the commands below; repeated, they run what is missing."),
        {
            "kind": "code",
            "lines": [*checkout, *commands, f"mosld-bench report {study.name}"],
        },
    )


def _distinct(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _weights(noted: dict[str, str]) -> str:
    """Where weights came from; twelve digits of a digest tell files apart."""
    return ", ".join(f"SHA-256 {value[:12]}" if key == "sha256" else value for key, value in noted.items())


def _versions(meta: dict[str, Any]) -> str:
    python = [f"Python {meta['python']}"] if meta.get("python") else []
    return ", ".join(
        [*python, *(f"{name} {version}" for name, version in sorted((meta.get("versions") or {}).items()))]
    )


SECTIONS: tuple[Callable[[Analysis], Section | None], ...] = (
    methods,
    protocol,
    results,
    reproduction,
    exposure,
    overlap_section,
    cost,
    profile_section,
    provenance,
)
