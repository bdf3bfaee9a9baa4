"""The report's opening paragraph: sentences made from the numbers, saying no more than they bear."""

from __future__ import annotations

from mosld_bench.format import counted, listed
from mosld_bench.report import table as tabular
from mosld_bench.report.analysis import Analysis, Comparison, Row
from mosld_bench.spec.budget import Rank
from mosld_bench.spec.trial import Condition


def summary(analysis: Analysis) -> list[str]:
    """The abstract: only what the numbers bear, in this order: scale, best rows, base, gaps."""
    study = analysis.study
    recipes = [recipe for recipe in analysis.recipes if recipe.method != "base"]
    if not study.trains:
        return _counts(analysis)
    domains = counted(len(study.in_domain), "in-domain task")
    if study.out_of_domain:
        domains += f" and {counted(len(study.out_of_domain), 'out-of-domain task')}"
    sentences = [
        f"We compare {counted(len(recipes), 'method')} on {domains}, starting from "
        f"{'the model' if len(study.models) == 1 else 'the models'} {study.model_names}."
    ]
    blocks = [block for block, _ in analysis.blocks() if analysis.best(block)]
    first: dict[tuple[str, str], Condition] = {}
    for block in blocks:
        first.setdefault((block.setting, block.model), block)
    told = list(first.values())
    for block in told:
        sentences += [_best_sentence(analysis, block), _outside_sentence(analysis, block)]
    rest = [(block, best) for block in blocks if block not in told and (best := analysis.best(block))]
    if rest:
        highest = [f"{best.recipe.title} ({tabular.short_label(block)}: {_spelled(best)})" for block, best in rest]
        sentences.append(f"Elsewhere the highest in-domain mean is that of {listed(highest)}.")
    if not blocks:
        sentences.append(_unmatched_sentence(analysis))
    chance = analysis.chance(study.in_domain)
    beside = f" (chance: {tabular.percent(chance)} %)" if chance is not None else ""
    for row in analysis.frozen:
        if row.score is not None:
            name = f"frozen base{tabular.beside(row.block)}".replace(", ", " ")
            sentences.append(f"The {name} scores {tabular.percent(row.score)} % in-domain{beside}.")
    if analysis.missing:
        sentences.append(
            f"{len(analysis.missing)} of {len(analysis.trials)} planned trials have no record, so the "
            f"picture is partial{_failed(analysis)}."
        )
    return [sentence for sentence in sentences if sentence]


def _failed(analysis: Analysis) -> str:
    """What a mean over the seeds that are left does not show."""
    if not analysis.failures:
        return ""
    of = listed(list(dict.fromkeys(trial.recipe.title for trial, _ in analysis.failures)))
    return f"; {counted(len(analysis.failures), 'trial')} of them failed ({of}; why is said under the table of results)"


def _counts(analysis: Analysis) -> list[str]:
    """The abstract of a study that counts parameters and trains nothing."""
    sized = [(row.trainable, row) for row in analysis.trained if row.trainable and row.recipe.method != "full"]
    if not sized:
        return ["No recipe has been counted yet."]
    low, high = min(sized, key=lambda pair: pair[0]), max(sized, key=lambda pair: pair[0])
    recipes = {row.recipe.name for row in analysis.trained}
    text = f"We count what {counted(len(recipes), 'method')} train on {analysis.study.model_names}; nothing is trained."
    span = f"Adapters have from {low[0]:,} parameters ({low[1].recipe.title}) to {high[0]:,} ({high[1].recipe.title})"
    ranks = len({count for count, row in sized if isinstance(row.budget, Rank)}) > 1
    return [text, span + (": methods of equal rank are far from equal in size." if ranks else ".")]


def _best_sentence(analysis: Analysis, block: Condition) -> str:
    best = analysis.best(block)
    assert best is not None
    at = f"{block.budget.label}{tabular.beside(block)}"
    where = f"In the {tabular.setting_label(block.setting)} setting at {at}"
    others = [row for row in analysis.scored(block) if row is not best]
    seeds = counted(len(best.by_seed()), "seed")
    among = f" of those with {seeds}" if any(len(row.by_seed()) < len(best.by_seed()) for row in others) else ""
    text = f"{where}, {best.recipe.title} has the highest in-domain mean{among}, {_spelled(best)}"
    if best.recipe.name == analysis.study.reference:
        text += "; it is itself the reference method."
    else:
        found = [c for c in analysis.against_reference(block) if c.row is best]
        text += (
            f", {_margin(found[0])}"
            if found
            else f". There is no {analysis.reference} with a seed in common to compare it with."
        )
    if not others:
        return text + " No other method has a record at this budget."
    if len(best.by_seed()) < 2:
        return text + " One seed separates nothing: the order of the methods is not a finding."
    return text + _tests(analysis, block, seeds, len(others))


def _tests(analysis: Analysis, block: Condition, seeds: str, others: int) -> str:
    """What tests against the best row of a block say, and which rows have none."""
    tied = [row.recipe.title for row in analysis.tied(block)]
    untested = analysis.untested(block)
    tested, text = others - len(untested), ""
    if tested and not tied:
        text = f" It is separated from all {'that can be tested' if untested else 'other methods'} by {seeds}."
    elif tied:
        rest = listed(tied)
        if len(tied) == tested > 1 and not untested:
            rest = f"any of the other {counted(tested, 'method')}"
        elif len(tied) > 5:
            rest = f"{len(tied)} of the other {tested} methods{' that can be tested' if untested else ''}"
        text = f" {seeds.capitalize()} do not separate it from {rest}."
    if untested:
        text += f" Not tested, for want of a second seed in common: {listed([r.recipe.title for r in untested])}."
    rows = set(map(id, untested))
    found = [c for c in analysis.against_best(block) if id(c.row) in rows and c.difference.mean > 0]
    if found:  # the means of such rows are over other seeds and would not tell
        ahead = [
            f"{c.row.recipe.title} (by {tabular.percent(c.difference.mean)} points, n = {c.difference.pairs})"
            for c in found
        ]
        text += f" Higher on the seeds in common: {listed(ahead)}."
    return text


def _outside_sentence(analysis: Analysis, block: Condition) -> str:
    """Where the best row of a block stands out-of-domain; picked in-domain, so this is no second search."""
    best, what = analysis.best(block), "out_of_domain"
    if best is None or best.mean_sd(what)[0] is None:
        return ""
    found = [c for c in analysis.against_reference(block, what) if c.row is best]
    beside = f", {_margin(found[0])}" if found else "."
    return f"Out-of-domain it has {_spelled(best, what)}{beside}"


def _spelled(row: Row, what: str = "in_domain") -> str:
    mean, sd = row.mean_sd(what)
    spread = "" if sd is None else f" ± {tabular.percent(sd)}"
    return f"{tabular.percent(mean)}{spread} % (n = {len(row.by_seed(what))})"


def _margin(comparison: Comparison) -> str:
    delta = comparison.difference
    side = "above" if delta.mean >= 0 else "below"
    text = f"{tabular.percent(abs(delta.mean))} points {side} {comparison.other.recipe.title}"
    if delta.low is None:
        seeds = "the one seed that both have" if delta.pairs == 1 else "every common seed alike"
        return f"{text} on {seeds}, which gives no interval."
    text += f" (95 % interval {tabular.interval(delta.low, delta.high)})"
    if delta.includes_zero:
        return text + ", a margin inside the noise between seeds."
    if comparison.separated:
        return text + ", more than the noise between seeds explains."
    p = tabular.p_value(comparison.adjusted)
    return f"{text}, which does not hold up after correction for the number of methods (p = {p})."


def _unmatched_sentence(analysis: Analysis) -> str:
    rows = [row for row in analysis.trained if row.score is not None]
    if not rows:
        return "No trained row has all its in-domain tasks yet, so no means are given."
    best = max(rows, key=lambda row: row.score or 0.0)
    return (
        f"No rows are matched in size or rank; the highest in-domain mean is that of {best.recipe.title} "
        f"({tabular.setting_label(best.setting)}{tabular.beside(best.block)}), "
        f"{_spelled(best)}, with {tabular.count(best.trainable)} trainable parameters."
    )
