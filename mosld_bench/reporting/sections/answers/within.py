"""Questions about one block: its methods, tasks, ablations and measures, and what they gain on the untrained model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mosld_bench.format import counted, listed, spelled
from mosld_bench.reporting.analysis import Analysis, Comparison, Verdict
from mosld_bench.reporting.evidence import PROBABILITY
from mosld_bench.reporting.labels import named
from mosld_bench.reporting.rows import Row
from mosld_bench.reporting.sections.answers.blocks import compared_blocks, on_score
from mosld_bench.reporting.verdicts import WORDS, Note, Wording, all_of, notes, numbers, sentences
from mosld_bench.spec.recipe import Group
from mosld_bench.spec.trial import Condition, Domain

_FEW = 4  # differences that are told one by one


def methods(analysis: Analysis, block: Condition, domain: Domain) -> Iterator[str]:
    """The methods of a block against the reference, by the mean of a domain or where it has none task by task."""
    if not analysis.unlike(domain):
        yield from _on_score(analysis, block, domain)
        return
    metrics = dict.fromkeys(metric for task in analysis.tasks_in(domain) if (metric := analysis.metric_name(task)))
    yield f"The tasks are scored on unlike scales ({listed(list(metrics))}), so no mean is taken over them."
    for task in analysis.tasks_in(domain):
        yield from _on_score(analysis, block, task)


def _on_score(analysis: Analysis, block: Condition, of: Domain | str) -> Iterator[str]:
    """The methods of a block on one score, and what is to be said of their intervals."""
    comparisons, other = analysis.against_reference(block, of), analysis.reference
    if not comparisons and (best := analysis.best(block, of)):
        comparisons, other = analysis.against_best(block, of), best.recipe.title
        if comparisons:
            yield from _why_against_best(analysis, block, of, best)
    comparisons = [c for c in comparisons if c.row.recipe.group == "main"]
    if not comparisons:
        return
    compared = {comparisons[0].other.key, *(c.row.key for c in comparisons)}
    rows = [row for row in analysis.scored(block, of) if row.recipe.group == "main" and row.key not in compared]
    on_task = "" if isinstance(of, Domain) else on_score(analysis, of)
    wording = Wording(other, where=on_task, rows="" if rows else "other method")
    yield from sentences(comparisons, wording)
    if len(comparisons) > 1 and any(c.verdict is Verdict.BETTER for c in comparisons):
        yield from _leading(analysis, block, of)
    if rows:
        has = "has" if len(rows) == 1 else "have"
        yield f"{named([row.recipe.title for row in rows])} {has} no seed in common with {other}."
    yield from notes(comparisons, wording)


def _leading(analysis: Analysis, block: Condition, of: Domain | str) -> Iterator[str]:
    """That one row is better than all others, where tests over all pairs say so."""
    if (best := analysis.best(block, of)) and analysis.leads(block, of):
        yield f"{best.recipe.title} is better than every other row (Holm over all pairs)."


def _why_against_best(analysis: Analysis, block: Condition, of: Domain | str, best: Row) -> Iterator[str]:
    """That rows are compared with the best of them, since none is with the reference."""
    scale, reference = analysis.scale(of), analysis.reference_row(block)
    reason = "is not among these rows"
    if reference is not None:
        reason = "has no seed in common with another row" if reference.by_seed(of) else "has no score yet"
    yield Note(
        f"{analysis.reference}, the reference, {reason}, so that rows are compared with the best of them, and tests "
        "corrected over all pairs since it was picked by looking."
    )
    yield (
        f"{best.recipe.title} has the {scale.best_word} {'mean' if isinstance(of, Domain) else 'score'}"
        f"{_fewer(analysis, block, of, best)}, {scale.text(best.mean_sd(of)[0])}{scale.sign}."
    )


def _fewer(analysis: Analysis, block: Condition, of: Domain | str, best: Row) -> str:
    """Where the best row is picked from those of the most seeds, that it is."""
    fewer = any(len(row.by_seed(of)) < len(best.by_seed(of)) for row in analysis.scored(block, of))
    return " of the rows with the most seeds" if fewer else ""


def by_task(analysis: Analysis, block: Condition) -> Iterator[str]:
    """Which tasks tell rows from the reference; the tasks of a domain are one family of tests."""
    for domain in analysis.averaged():
        tasks = analysis.tasks_in(domain)
        tested = [c for c in analysis.by_task(block, domain) if c.verdict is not Verdict.UNTESTED]
        told = [c for c in tested if c.separated]
        if len(tasks) < 2 or not tested:
            continue
        telling = [task for task in tasks if any(c.of == task for c in told)]
        kind, tests = f"{domain.label.lower()} task", f"(Holm over {len(tested)} tests)"
        if not told:
            yield f"No {kind} tells a method from {analysis.reference} {tests}."
            continue
        each = "; ".join(_on_tasks(analysis, told))
        if len(told) > _FEW:
            counts = [(task, sum(c.of == task for c in told), sum(c.of == task for c in tested)) for task in telling]
            each = named([f"{analysis.title(task)} {count} of {total}" for task, count, total in counts], "tasks")
        which = all_of(len(tasks), kind)
        if len(telling) < len(tasks):
            which = f"{spelled(len(telling))} of the {counted(len(tasks), kind)}"
        yield (
            f"{which[0].upper()}{which[1:]} {'tells' if len(telling) == 1 else 'tell'} methods from "
            f"{analysis.reference} {tests}: {each}."
        )


def _on_tasks(analysis: Analysis, told: Sequence[Comparison]) -> Iterator[str]:
    """'SiRA is worse on MCTest (−5.6 points, 95 % −8.4 to −2.8)', row by row."""
    rows: dict[tuple[str, Verdict], list[Comparison]] = {}
    for comparison in told:
        rows.setdefault((comparison.row.recipe.title, comparison.verdict), []).append(comparison)
    full = True
    for (title, verdict), comparisons in rows.items():
        each = []
        for comparison in comparisons:
            each.append(f"{on_score(analysis, comparison.of)} ({numbers(comparison, full=full)})")
            full = False
        yield f"{title} is {WORDS[verdict]} {listed(each)}"


def of_group(analysis: Analysis, group: Group, noun: str) -> Iterator[str]:
    """The recipes of a group beside the main one, each a ``noun``, against the reference; of the first block with some.

    They are a question of their own, beside the methods that a study compares.
    """
    for block in compared_blocks(analysis):
        found = {
            of: [c for c in analysis.against_reference(block, of) if c.row.recipe.group == group]
            for of in analysis.compared()
        }
        if any(found.values()):
            for of, comparisons in found.items():
                wording = Wording(analysis.reference, where=on_score(analysis, of), rows=noun)
                yield from sentences(comparisons, wording)
                yield from notes(comparisons, wording)
            return


def other_measures(analysis: Analysis, block: Condition) -> Iterator[str]:
    """Which rows of a block have another verdict in-domain by what is measured beside the primary metric."""
    if analysis.unlike(Domain.IN):
        return
    primary = {c.row.key: c.verdict for c in analysis.against_reference(block)}
    agreeing, differing = [], 0
    for metric in (PROBABILITY, *analysis.other_metrics()):
        name = "the probability of the right option" if metric == PROBABILITY else metric.removesuffix(",none")
        if analysis.unlike_under(metric):
            continue
        comparisons = analysis.against_reference(block, Domain.IN, metric)
        pairs = [(c, primary.get(c.row.key, Verdict.UNTESTED)) for c in comparisons]
        tested = [(c, verdict) for c, verdict in pairs if Verdict.UNTESTED not in {c.verdict, verdict}]
        changed = [c for c, verdict in tested if c.verdict is not verdict]
        if changed:
            differing += 1
            yield from sentences(changed, Wording(analysis.reference, where=f"by {name}"))
        elif tested:
            agreeing.append(name)
    if agreeing:
        yield f"By {listed(agreeing)} every verdict is that of {analysis.measure}."
    elif differing:
        yield f"All other verdicts are those of {analysis.measure}."


def gains(analysis: Analysis, block: Condition | None) -> Iterator[str]:
    """The rows of a block against the untrained model, and how many of the other blocks do not gain."""
    blocks = [condition for condition, _ in analysis.blocks()]
    block = block or next(iter(blocks), None)
    if block is None or (base := analysis.frozen_of(block)) is None:
        return
    for of in analysis.compared():
        scale = analysis.scale(of)
        level = f"its {scale.text(base.mean_sd(of)[0])}{scale.sign}"
        wording = Wording(level, model=level, where=on_score(analysis, of), rows="method", few=1, gains=True)
        yield from sentences(analysis.against_base(block, of), wording)
    elsewhere = [c for other in blocks if other != block for c in analysis.against_base(other)]
    tested = [c for c in elsewhere if c.verdict is not Verdict.UNTESTED]
    without = sum(c.verdict is not Verdict.BETTER for c in tested)
    if without:
        yield f"In the other blocks {without} of {len(tested)} tested rows are not shown to gain in-domain."
    elif tested:
        yield "In the other blocks all tested rows gain in-domain."
