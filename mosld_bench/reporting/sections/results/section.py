"""The text of the section Results: what the tables show, and how far their numbers bear."""

from __future__ import annotations

from collections.abc import Sequence

from mosld_bench.format import counted, listed
from mosld_bench.records.scale import Scale
from mosld_bench.reporting.analysis import Analysis, Verdict
from mosld_bench.reporting.document import Run, Section, bullets, paragraph, section
from mosld_bench.reporting.labels import MOST_NAMED, block_label, margin_label, named
from mosld_bench.reporting.rows import Row
from mosld_bench.reporting.sections.results.differences import (
    base_tables,
    differences_tables,
    settings_tables,
    task_tables,
)
from mosld_bench.reporting.sections.results.main_table import main_tables
from mosld_bench.reporting.sections.results.method import TITLE as METHOD
from mosld_bench.reporting.sections.results.other_metrics import other_metrics_tables
from mosld_bench.reporting.table import Table
from mosld_bench.spec.trial import Condition, Domain

RISE = 0.05  # of the validation loss above its lowest: more than it moves by from one validation to the next


def results(analysis: Analysis) -> Section | None:
    """The tables of scores and of differences, and how to read them; None without training."""
    if not analysis.study.trains:
        return None
    differences = [*differences_tables(analysis), *([] if _has_means(analysis) else task_tables(analysis))]
    length = _length_of_training(analysis)
    return section(
        "Results",
        paragraph(
            Run("main", "ref"), " gives every row", *_has(differences, f" the differences to {analysis.reference}"), "."
        ),
        bullets(_block_sentences(analysis)),
        *main_tables(analysis),
        *differences,
        None
        if differences
        else paragraph(
            f"No block holds {analysis.reference} beside another row with a common seed, so no differences are given."
        ),
        paragraph(Run("What the tests cover. ", "bold"), _coverage(analysis)),
        paragraph(Run("Length of training. ", "bold"), length) if length else None,
    )


def further_results(analysis: Analysis) -> Section | None:
    """Differences by task, to the untrained model and between settings, and other metrics; None without any."""
    if not analysis.study.trains:
        return None
    tables = {
        f"the differences to {analysis.reference} by task": task_tables(analysis) if _has_means(analysis) else [],
        "the gains on the untrained model": base_tables(analysis),
        "the mixture minus single tasks": settings_tables(analysis),
        "other metrics": other_metrics_tables(analysis),
    }
    told = [part for subject, of_subject in tables.items() for part in _has(of_subject, f" has {subject}")]
    if not told:
        return None
    blocks = [table for of_subject in tables.values() for table in of_subject]
    return section("Further results", paragraph(*told[1:], "."), *blocks, appendix=True)


def _has_means(analysis: Analysis) -> bool:
    """Whether rows are compared on their in-domain means, so that those by task are further differences."""
    return any(analysis.against_reference(condition) for condition, _ in analysis.blocks())


def _has(tables: Sequence[Table], subject: str) -> list[str | Run]:
    """', Table 5 has the differences to LoRA'; nothing without a table."""
    return [", ", Run(tables[0].name, "ref"), subject] if tables else []


def _block_sentences(analysis: Analysis) -> list[str]:
    """Of every block with two scored rows, the range of its means and what tests say of its rows."""
    sentences = []
    for condition, _ in analysis.blocks():
        scored = [row for row in analysis.scored(condition) if row.ranked]
        if len(scored) < 2:
            continue
        scale = analysis.scale(Domain.IN)
        ordered = sorted(scored, key=lambda row: scale.rank(row.score or 0.0))
        sentences.append(
            f"{block_label(condition)}: in-domain means run from {_score(scale, ordered[0])} to "
            f"{_score(scale, ordered[-1])}{'' if scale.higher_is_better else ', lower being better'}. "
            f"{_told(analysis, condition)}{_at_chance(analysis, scored)}"
        )
    if not sentences and analysis.unlike(Domain.IN):
        return [
            "The in-domain tasks are scored on unlike scales, so no mean is taken over them: rows are compared task by "
            f"task.{_at_chance(analysis, analysis.trained)}"
        ]
    return sentences or ["No block has two rows of equal size or rank with all their in-domain tasks."]


def _told(analysis: Analysis, condition: Condition) -> str:
    """The rows of a block by what tests say of them beside the reference, or where that is missing, the best."""
    comparisons = analysis.against_reference(condition)
    other = analysis.reference
    if not comparisons and (best := analysis.best(condition)):
        comparisons, other = analysis.against_best(condition), best.recipe.title
    if all(c.verdict is Verdict.UNTESTED for c in comparisons):
        return "Nothing is said of methods, for want of seeds."
    words = {
        Verdict.BETTER: "better",
        Verdict.WORSE: "worse",
        Verdict.EQUAL: f"equal within {margin_label(analysis.study.margin)}",
        Verdict.OPEN: "neither told apart nor shown equal",
        Verdict.UNTESTED: "not tested",
    }
    rows = {verdict: [c.row.recipe.title for c in comparisons if c.verdict is verdict] for verdict in words}
    return f"Beside {other}: {'; '.join(f'{words[v]}: {_named(titles)}' for v, titles in rows.items() if titles)}."


def _named(titles: Sequence[str]) -> str:
    """The rows by title, or how many they are, where nobody would read so many."""
    return listed(titles) if len(titles) <= MOST_NAMED else counted(len(titles), "row")


def _score(scale: Scale, row: Row) -> str:
    """'68.5 % (LoRA)'."""
    return f"{scale.text(row.score)}{scale.sign} ({row.recipe.title})"


def _at_chance(analysis: Analysis, rows: Sequence[Row]) -> str:
    """The tasks on which no row does better than a guess: nothing there tells methods apart."""
    titles = []
    for task in analysis.task_names:
        metric, means = analysis.metric(task), [mean for row in rows if (mean := row.mean_sd(task)[0]) is not None]
        scale, level = analysis.scale(task), metric.chance if metric else None
        if level is not None and means and not any(scale.better(mean, level) for mean in means):
            titles.append(analysis.title(task))
    return f" No row is above chance on {named(titles, 'tasks')}." if titles else ""


def _coverage(analysis: Analysis) -> str:
    """What the tests answer and what not."""
    blocks = [condition for condition, _ in analysis.blocks()]
    compared = [
        c for of in analysis.compared() for condition in blocks for c in analysis.against_reference(condition, of)
    ]
    if any(c.difference.of_methods for c in compared):
        judged = (
            "A difference is judged by how it varies over the seeds and over the items that two rows have in common."
        )
    else:
        judged = (
            "For want of seeds a difference is one of the models that were trained, judged by how it varies over items."
        )
    return (
        f"{judged} The choice of tasks, of the base model and of learning rates is not in it. Intervals are of 95 %, "
        f"each by itself; p is Holm's. “{METHOD}” has the method in exact words."
    )


def _length_of_training(analysis: Analysis) -> str:
    """Where training went on after the validation loss was at its lowest; the last step is what is scored."""
    risen: dict[str, dict[str, None]] = {}  # what was trained on -> titles of the recipes
    trials = over = 0
    for record in analysis.records:
        curve = record.train_info.curve if record.train_info else ()
        losses = [point.validation_loss for point in curve if point.validation_loss is not None]
        trials += len(losses) > 1
        if len(losses) > 1 and losses[-1] > (1 + RISE) * min(losses):
            over += 1
            trial = record.trial
            data = f"{analysis.title(trial.train_on[0])} alone" if trial.setting == "single" else "the mixture"
            risen.setdefault(data, {})[trial.recipe.title] = None
    if not trials:
        return ""
    where = f" ({'; '.join(f'{data}: {named(list(titles))}' for data, titles in risen.items())})" if over else ""
    return (
        f"The last step is scored. There the validation loss was more than {100 * RISE:g} % above its lowest in "
        f"{over or 'none'} of {trials} trials{where}."
    )
