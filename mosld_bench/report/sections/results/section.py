"""The text of the section Results: what the tables show, and how far their numbers bear."""

from __future__ import annotations

from collections.abc import Sequence

from mosld_bench.format import listed
from mosld_bench.records.scale import Scale
from mosld_bench.report import stats
from mosld_bench.report.analysis import Analysis
from mosld_bench.report.document import Run, Section, bullets, paragraph, section
from mosld_bench.report.labels import block_label
from mosld_bench.report.rows import Row
from mosld_bench.report.sections.results.differences import differences_table
from mosld_bench.report.sections.results.main_table import main_tables
from mosld_bench.report.sections.results.other_metrics import other_metrics_table
from mosld_bench.spec.trial import Domain

RISE = 0.05  # of the validation loss above its lowest: more than it moves by from one validation to the next


def results(analysis: Analysis) -> Section | None:
    """The main table, how to read it, and the differences to the study's reference; None without training."""
    if not analysis.study.trains:
        return None
    differences = differences_table(analysis)
    length = _length_of_training(analysis)
    return section(
        "Results",
        paragraph(
            Run("main", "ref"),
            " gives every row",
            ", and " if differences else "",
            Run("differences" if differences else "", "ref"),
            f" the differences to {analysis.reference}." if differences else ".",
        ),
        bullets(_block_sentences(analysis)),
        *main_tables(analysis),
        differences
        or paragraph(
            f"No block holds {analysis.reference} beside another row with a common seed, so no differences are given."
        ),
        paragraph(Run("What the tests cover. ", "bold"), _coverage(analysis)),
        paragraph(Run("Length of training. ", "bold"), length) if length else None,
        other_metrics_table(analysis),
    )


def _block_sentences(analysis: Analysis) -> list[str]:
    """Of every block with two scored rows, the range of its means and what is not separated from the best."""
    sentences = []
    for condition, _ in analysis.blocks():
        best, scored = analysis.best(condition), analysis.scored(condition)
        if best is None or len(scored) < 2:
            continue
        scale = analysis.scale(Domain.IN)
        ordered = sorted(scored, key=lambda row: scale.rank(row.score or 0.0))
        untested = len(analysis.untested(condition))
        tested = len(scored) - 1 - untested
        text = (
            f"not separated from {best.recipe.title}: {len(analysis.tied(condition))} of the {tested} tested"
            if tested
            else "no two rows have two seeds in common, so nothing is tested"
        )
        sentences.append(
            f"{block_label(condition)}: in-domain means run from {_score(scale, ordered[0])} to "
            f"{_score(scale, ordered[-1])}{'' if scale.higher_is_better else ', lower being better'}; "
            f"{text}{f', {untested} not tested' if tested and untested else ''}.{_at_chance(analysis, scored)}"
        )
    if not sentences and analysis.unlike(Domain.IN):
        return [
            "The in-domain tasks are scored on unlike scales, so no mean is taken over them: no rows are ranked, and "
            f"what is best on a task is bold in the table.{_at_chance(analysis, analysis.trained)}"
        ]
    return sentences or ["No block has two rows of equal size or rank with all their in-domain tasks."]


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
    return f" No row is above chance on {listed(titles)}." if titles else ""


def _coverage(analysis: Analysis) -> str:
    """What the tests cover and what not, and the standard errors over items."""
    scale = analysis.scale(Domain.IN)
    means = "scores on a task" if analysis.unlike(Domain.IN) else "in-domain means"
    text = (
        f"The unit of the tests is the seed: rows are compared by the differences of their {means} "
        f"at equal seeds (Student's t, two-sided, Holm-corrected within a block, level {stats.LEVEL:g}). "
        "This covers what varies with the seed; it does not cover the choice of test items or of tasks, "
        "and few seeds have little power, so that “not separated” does not mean “equal”."
    )
    if not analysis.unlike(Domain.IN):
        text += (
            f" The {scale.best_word} row was picked by looking, which makes tests against it lean towards a difference."
        )
    ranges = []
    for domain in analysis.averaged():
        if errors := analysis.item_errors(domain):
            scale = analysis.scale(domain)
            low, high = scale.text(min(errors)), scale.text(max(errors))
            points = low if low == high else f"{low} to {high}"
            ranges.append(f"{points}{scale.points} for one {domain.label.lower()} mean")
    if ranges:
        text += (
            f" The standard error over items is {listed(ranges)}; rows are scored on the same items, so part of it "
            "cancels in their differences."
        )
    if without := analysis.without_item_error():
        text += f" lm-eval gives no standard error over items of {listed(without)}, so no mean with it has one."
    return text


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
    where = f" ({'; '.join(f'{data}: {listed(list(titles))}' for data, titles in risen.items())})" if over else ""
    return (
        f"The last step is scored. There the validation loss was more than {100 * RISE:g} % above its lowest in "
        f"{over or 'none'} of {trials} trials{where}."
    )
