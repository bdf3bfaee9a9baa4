"""How the report opens: an answer to each question of the study, then how large the study is and what it lacks."""

from __future__ import annotations

from mosld_bench.format import counted, listed, spelled
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Answer, answer
from mosld_bench.reporting.labels import named
from mosld_bench.reporting.sections.answers import answers
from mosld_bench.reporting.sections.results.main_table import absent, ties
from mosld_bench.spec.budget import Rank

_MANY_TIES = 0.1  # of a task's items: more than the abstract can leave to the table


def summary(analysis: Analysis) -> list[Answer | str]:
    """The answers, then sentences on the study's scale; of a study that trains nothing, the parameter counts."""
    if not analysis.study.trains:
        return [_parameters(analysis)]
    scale = (_scale(analysis), _gaps(analysis), *absent(analysis), *ties(analysis, _MANY_TIES))
    return [*answers(analysis), *(sentence for sentence in scale if sentence)]


def answer_lines(analysis: Analysis) -> list[str]:
    """The answers as lines, each after its question: for the terminal."""
    parts = [part for part in summary(analysis) if isinstance(part, Answer)]
    return [f"{part.question} {''.join(run.text for run in part.runs)}" for part in parts]


def _parameters(analysis: Analysis) -> Answer:
    """What a study that trains nothing has counted."""
    recipes = {row.recipe.name for row in analysis.trained}
    counts = f"{counted(len(recipes), 'method').capitalize()} on {analysis.study.model_names}; nothing is trained."
    sized = [(row.trainable, row) for row in analysis.trained if row.trainable and row.recipe.method != "full"]
    if not sized:
        return answer("Parameters.", f"No adapter has been counted yet. {counts}")
    (least, smallest), (most, largest) = (pick(sized, key=lambda pair: pair[0]) for pick in (min, max))
    apart = len({size for size, row in sized if isinstance(row.budget, Rank)}) > 1
    return answer(
        "Parameters.",
        f"Adapters have from {least:,} trainable parameters ({smallest.recipe.title}) to {most:,} "
        f"({largest.recipe.title}){', so that equal rank is far from equal size' if apart else ''}. {counts}",
    )


def _scale(analysis: Analysis) -> str:
    """Methods, tasks with their items, models, trials and seeds."""
    study = analysis.study
    recipes = [recipe for recipe in analysis.recipes if recipe.method != "base"]
    tasks = []
    for domain in analysis.domains:
        names = analysis.tasks_in(domain)
        scored = sum(metric.items for task in names if (metric := analysis.metric(task)))
        tasks.append(f"{counted(len(names), f'{domain.label.lower()} task')} ({scored:,} items)")
    seeds = sorted({row.n for row in analysis.trained if row.n})
    each = f"{spelled(seeds[0])} to {counted(seeds[-1], 'seed')}" if len(seeds) > 1 else counted(sum(seeds), "seed")
    return (
        f"{counted(len(recipes), 'method').capitalize()} on {listed(tasks)}, starting from {study.model_names}: "
        f"{counted(len(analysis.trials), 'trial')} with {each} a row."
    )


def _gaps(analysis: Analysis) -> str:
    """How many planned trials have no record, and how many of these failed; empty where none is missing."""
    if not analysis.missing:
        return ""
    text = f"{len(analysis.missing)} of {len(analysis.trials)} planned trials have no record, so the picture is partial"
    if analysis.failures:
        recipes = named(list(dict.fromkeys(trial.recipe.title for trial, _ in analysis.failures)))
        failed = f"{counted(len(analysis.failures), 'trial')} of them failed"
        text += f"; {failed} ({recipes}; why is said under the table of results)"
    return f"{text}."
