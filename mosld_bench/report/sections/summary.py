"""The report's opening paragraph: sentences made from the numbers, saying no more than they bear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mosld_bench.format import counted, listed
from mosld_bench.report.analysis import Analysis, Comparison
from mosld_bench.report.labels import count, p_value, setting_label, short_label, suffix
from mosld_bench.report.rows import Row
from mosld_bench.report.sections.results.main_table import absent, ties
from mosld_bench.spec.budget import Rank
from mosld_bench.spec.trial import Condition, Domain

_MANY_TIES = 0.1  # of a task's items: more than the abstract can leave to the table


def summary(analysis: Analysis) -> list[str]:
    """The abstract: scale, best rows, untrained models, gaps; of a study that trains nothing, the parameter counts."""
    if not analysis.study.trains:
        return _parameters(analysis)
    sentences = (
        _scale(analysis), *_best_rows(analysis), *_frozen(analysis), _gaps(analysis), *absent(analysis),
        *ties(analysis, _MANY_TIES)
    )  # fmt: skip
    return [sentence for sentence in sentences if sentence]


def _parameters(analysis: Analysis) -> list[str]:
    """The abstract of a study that counts parameters and trains nothing."""
    sized = [(row.trainable, row) for row in analysis.trained if row.trainable and row.recipe.method != "full"]
    if not sized:
        return ["No recipe has been counted yet."]
    low, high = min(sized, key=lambda pair: pair[0]), max(sized, key=lambda pair: pair[0])
    recipes = {row.recipe.name for row in analysis.trained}
    text = f"We count what {counted(len(recipes), 'method')} train on {analysis.study.model_names}; nothing is trained."
    sizes = f"Adapters have from {low[0]:,} parameters ({low[1].recipe.title}) to {high[0]:,} ({high[1].recipe.title})"
    apart = len({size for size, row in sized if isinstance(row.budget, Rank)}) > 1
    return [text, sizes + (": methods of equal rank are far from equal in size." if apart else ".")]


def _scale(analysis: Analysis) -> str:
    study = analysis.study
    recipes = [recipe for recipe in analysis.recipes if recipe.method != "base"]
    tasks = counted(len(study.in_domain), "in-domain task")
    if study.out_of_domain:
        tasks += f" and {counted(len(study.out_of_domain), 'out-of-domain task')}"
    return (
        f"We compare {counted(len(recipes), 'method')} on {tasks}, starting from "
        f"{'the model' if len(study.models) == 1 else 'the models'} {study.model_names}."
    )


def _best_rows(analysis: Analysis) -> Iterator[str]:
    """The best row of the first block of each setting and model at length, those of the others in one sentence."""
    blocks = {condition: best for condition, _ in analysis.blocks() if (best := analysis.best(condition))}
    first: dict[tuple[str, str], Condition] = {}
    for condition in blocks:
        first.setdefault((condition.setting, condition.model), condition)
    for condition in first.values():
        yield _best_sentence(analysis, condition, blocks[condition])
        yield _outside_sentence(analysis, condition, blocks[condition])
    rest = {condition: best for condition, best in blocks.items() if condition not in first.values()}
    if rest:
        each = [
            f"{best.recipe.title} ({short_label(block)}: {_spelled(analysis, best)})" for block, best in rest.items()
        ]
        yield f"Elsewhere the {analysis.scale(Domain.IN).best_word} in-domain mean is that of {listed(each)}."
    if analysis.unlike(Domain.IN):
        yield from _by_task(analysis)
    elif not blocks:
        yield _unmatched_sentence(analysis)


def _by_task(analysis: Analysis) -> Iterator[str]:
    """Where the in-domain tasks have no mean: that it is so, and the best row of each task in each first block."""
    tasks = analysis.study.in_domain
    metrics = dict.fromkeys(metric for task in tasks if (metric := analysis.metric_name(task)))
    yield (
        f"The in-domain tasks are scored on unlike scales ({listed(list(metrics))}), so no mean is taken over them and "
        "rows are not ranked."
    )
    seen: set[tuple[str, str]] = set()
    for condition, _ in analysis.blocks():
        best = {task: row for task in tasks if (row := analysis.best(condition, task))}
        if best and (condition.setting, condition.model) not in seen:
            seen.add((condition.setting, condition.model))
            each = [
                f"{row.recipe.title} on {analysis.title(task)} ({_spelled(analysis, row, task)}"
                f"{'' if analysis.scale(task).higher_is_better else '; lower is better'})"
                for task, row in best.items()
            ]
            size = f"{condition.budget.label}{suffix(condition)}"
            yield f"In the {setting_label(condition.setting)} setting at {size} the best by task is {listed(each)}."


def _best_sentence(analysis: Analysis, condition: Condition, best: Row) -> str:
    size = f"{condition.budget.label}{suffix(condition)}"
    others = [row for row in analysis.scored(condition) if row.key != best.key]
    seeds = counted(len(best.by_seed()), "seed")
    among = f" of those with {seeds}" if any(len(row.by_seed()) < len(best.by_seed()) for row in others) else ""
    scale = analysis.scale(Domain.IN)
    direction = "" if scale.higher_is_better else " (lower is better)"
    text = (
        f"In the {setting_label(condition.setting)} setting at {size}, {best.recipe.title} has the "
        f"{scale.best_word} in-domain mean{among}{direction}, {_spelled(analysis, best)}"
    )
    if best.recipe.name == analysis.study.reference:
        text += "; it is itself the reference method."
    elif margin := _margin(analysis, condition, best, Domain.IN):
        text += f", {margin}"
    else:
        text += f". There is no {analysis.reference} with a seed in common to compare it with."
    if not others:
        return text + " No other method has a record at this budget."
    if len(best.by_seed()) < 2:
        return text + " One seed separates nothing: the order of the methods is not a finding."
    return text + _tests(analysis, condition, seeds, len(others))


def _tests(analysis: Analysis, condition: Condition, seeds: str, others: int) -> str:
    """What tests against the best row of a block say, and which rows have none."""
    tied = [row.recipe.title for row in analysis.tied(condition)]
    untested = analysis.untested(condition)
    tested, text = others - len(untested), ""
    if tested and not tied:
        text = f" It is separated from all {'that can be tested' if untested else 'other methods'} by {seeds}."
    elif tied:
        rows = listed(tied)
        if len(tied) == tested > 1 and not untested:
            rows = f"any of the other {counted(tested, 'method')}"
        elif len(tied) > 5:
            rows = f"{len(tied)} of the other {tested} methods{' that can be tested' if untested else ''}"
        text = f" {seeds.capitalize()} do not separate it from {rows}."
    if untested:
        text += f" Not tested, for want of a second seed in common: {listed([r.recipe.title for r in untested])}."
    return text + _ahead(analysis, condition, untested)


def _ahead(analysis: Analysis, condition: Condition, untested: Sequence[Row]) -> str:
    """The untested rows that beat the best one on common seeds; their means are over other seeds, and hide it."""
    keys, scale = {row.key for row in untested}, analysis.scale(Domain.IN)
    ahead = [
        f"{c.row.recipe.title} (by {scale.text(abs(c.difference.mean))}{scale.points}, n = {c.difference.seeds})"
        for c in analysis.against_best(condition)
        if c.row.key in keys and scale.better(c.difference.mean, 0)
    ]
    side = "Higher" if scale.higher_is_better else "Lower"
    return f" {side} on the seeds in common: {listed(ahead)}." if ahead else ""


def _outside_sentence(analysis: Analysis, condition: Condition, best: Row) -> str:
    """Where the best row of a block stands out-of-domain; picked in-domain, so this is no second search."""
    if best.mean_sd(Domain.OUT)[0] is None:
        return ""
    margin = _margin(analysis, condition, best, Domain.OUT)
    lower = "" if analysis.scale(Domain.OUT).higher_is_better else " (lower is better)"
    return f"Out-of-domain{lower} it has {_spelled(analysis, best, Domain.OUT)}{f', {margin}' if margin else '.'}"


def _spelled(analysis: Analysis, row: Row, of: Domain | str = Domain.IN) -> str:
    """'70.7 ± 0.6 % (n = 3)'."""
    scale = analysis.scale(of)
    return f"{scale.mean_text(*row.mean_sd(of))}{scale.sign} (n = {len(row.by_seed(of))})"


def _margin(analysis: Analysis, condition: Condition, row: Row, domain: Domain) -> str:
    """How far a row is from the reference of its block; empty where they have no seed in common."""
    comparisons = {c.row.key: c for c in analysis.against_reference(condition, domain)}
    return _margin_sentence(comparisons[row.key]) if row.key in comparisons else ""


def _margin_sentence(comparison: Comparison) -> str:
    delta, scale = comparison.difference, comparison.scale
    side = "above" if delta.mean >= 0 else "below"
    text = f"{scale.text(abs(delta.mean))}{scale.points} {side} {comparison.other.recipe.title}"
    if delta.low is None:
        seeds = "the one seed that both have" if delta.seeds == 1 else "every common seed alike"
        return f"{text} on {seeds}, which gives no interval."
    text += f" (95 % interval {scale.interval(delta.low, delta.high)})"
    if delta.low <= 0 <= (delta.high or 0.0):
        return text + ", a margin inside the noise between seeds."
    if comparison.separated:
        return text + ", more than the noise between seeds explains."
    p = p_value(comparison.adjusted)
    return f"{text}, which does not hold up after correction for the number of methods (p = {p})."


def _unmatched_sentence(analysis: Analysis) -> str:
    """The best row of a study in which nothing is matched in size or rank."""
    rows = [row for row in analysis.trained if row.score is not None]
    if not rows:
        return "No trained row has all its in-domain tasks yet, so no means are given."
    scale = analysis.scale(Domain.IN)
    best = max(rows, key=lambda row: scale.rank(row.score or 0.0))
    return (
        f"No rows are matched in size or rank; the {scale.best_word} in-domain mean is that of {best.recipe.title} "
        f"({setting_label(best.setting)}{suffix(best.condition)}), "
        f"{_spelled(analysis, best)}, with {count(best.trainable)} trainable parameters."
    )


def _frozen(analysis: Analysis) -> list[str]:
    """What the untrained models score, beside chance."""
    level, scale = analysis.chance(analysis.study.in_domain), analysis.scale(Domain.IN)
    chance = f" (chance: {scale.text(level)}{scale.sign})" if level is not None else ""
    scored = [row for row in analysis.frozen if row.score is not None]
    names = [f"frozen base{suffix(row.condition)}".replace(", ", " ") for row in scored]
    return [
        f"The {name} scores {scale.text(row.score)}{scale.sign} in-domain{chance}."
        for name, row in zip(names, scored, strict=True)
    ]


def _gaps(analysis: Analysis) -> str:
    """How many planned trials have no record, and how many of these failed; empty where none is missing."""
    if not analysis.missing:
        return ""
    text = f"{len(analysis.missing)} of {len(analysis.trials)} planned trials have no record, so the picture is partial"
    if analysis.failures:
        recipes = listed(list(dict.fromkeys(trial.recipe.title for trial, _ in analysis.failures)))
        failed = f"{counted(len(analysis.failures), 'trial')} of them failed"
        text += f"; {failed} ({recipes}; why is said under the table of results)"
    return f"{text}."
