"""Questions about several blocks: whether verdicts and differences change from one to another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mosld_bench.format import listed
from mosld_bench.reporting.analysis import Analysis, Comparison, Verdict
from mosld_bench.reporting.labels import named
from mosld_bench.reporting.rows import Row
from mosld_bench.reporting.sections.answers.blocks import blocks_text, compared_blocks, on_score, where
from mosld_bench.reporting.verdicts import WORDS, Wording, margin_text, numbers, seeds_note, sentences
from mosld_bench.spec.trial import Condition, Domain

_FEW = 4  # rows, or differences, that are told one by one


def between_settings(analysis: Analysis) -> Iterator[str]:
    """Rows trained on the mixture against the same trained task by task."""
    several = len({row.condition for row in analysis.trained if row.setting == "mixture" and row.ranked}) > 1

    def name(row: Row) -> str:
        return (
            f"{row.recipe.title} with {where(analysis, row.condition, setting=False)}" if several else row.recipe.title
        )

    for of in analysis.compared():
        wording = Wording(
            "training task by task",
            model="those trained task by task",
            where=on_score(analysis, of),
            rows="row" if several else "method",
            few=2,
            name=name,
        )
        comparisons = analysis.between_settings(of)
        if of is Domain.IN or any(c.verdict is not Verdict.UNTESTED for c in comparisons):
            yield from sentences(comparisons, wording)


def across(analysis: Analysis) -> Iterator[str]:
    """Whether the verdicts of rows, and their differences to the reference, change from block to block in-domain."""
    blocks = compared_blocks(analysis)
    if len(blocks) < 2 or analysis.unlike(Domain.IN):
        return
    found = {block: analysis.against_reference(block) for block in blocks}
    tested = {block: of for block, of in found.items() if any(c.verdict is not Verdict.UNTESTED for c in of)}
    if len(tested) > 1:
        yield from _verdicts(analysis, tested)
        yield from _changes(analysis)
    elif not tested:
        yield from _of_models(analysis, [c for of in found.values() for c in of], len(blocks))


def _verdicts(analysis: Analysis, tested: Mapping[Condition, Sequence[Comparison]]) -> Iterator[str]:
    """Which rows have several verdicts, and in which blocks; of many rows, how many have which verdict in each."""
    verdicts: dict[str, dict[Verdict, list[str]]] = {}
    titles = {c.row.recipe.name: c.row.recipe.title for comparisons in tested.values() for c in comparisons}
    for block, comparisons in tested.items():
        for comparison in comparisons:
            of_row = verdicts.setdefault(comparison.row.recipe.name, {})
            of_row.setdefault(comparison.verdict, []).append(where(analysis, block))
    differing = {name: of_row for name, of_row in verdicts.items() if len(of_row) > 1}
    if not differing:
        yield f"Every method has the same verdict over {blocks_text(analysis, len(tested))}."
    elif len(differing) <= _FEW:
        each = [
            f"{titles[name]} ({'; '.join(f'{WORDS[verdict]}: {listed(at)}' for verdict, at in of_row.items())})"
            for name, of_row in differing.items()
        ]
        yield f"Verdicts differ for {listed(each)}."
    else:
        counts = {
            where(analysis, block): [(word, sum(c.verdict is v for c in of)) for v, word in WORDS.items()]
            for block, of in tested.items()
        }
        each = [f"{at}: {', '.join(f'{n} {word}' for word, n in of if n)}" for at, of in counts.items()]
        yield f"Verdicts differ for {len(differing)} of {len(titles)} methods ({'; '.join(each)})."


def _changes(analysis: Analysis) -> Iterator[str]:
    """Which differences are shown to change between two blocks, or else the largest change."""
    changes = [c for c in analysis.changes() if c.verdict is not Verdict.UNTESTED]
    told = [c for c in changes if c.separated]
    reference = analysis.reference

    def change(comparison: Comparison) -> str:
        blocks = (where(analysis, row.condition) for row in (comparison.other, comparison.row))
        return f"{comparison.row.recipe.title} from {' to '.join(blocks)} ({numbers(comparison)})"

    if told and len(told) <= _FEW:
        yield f"The difference to {reference} changes for {listed([change(c) for c in told])}."
    elif told:
        titles = named(list(dict.fromkeys(c.row.recipe.title for c in told)))
        yield f"{len(told)} of {len(changes)} changes of a difference to {reference} are shown, those of {titles}."
    elif changes:
        most = max(changes, key=lambda c: abs(c.difference.mean))
        found = f"No difference to {reference} is shown to change"
        if all(c.within for c in changes):
            found = f"Every difference to {reference} is shown to change by less than {margin_text(most)}"
        yield f"{found}; the largest change is that of {change(most)}."


def _of_models(analysis: Analysis, untested: Sequence[Comparison], blocks: int) -> Iterator[str]:
    """What trained models differ by where no block has a test."""
    scale = analysis.scale(Domain.IN)
    rows: dict[str, list[float]] = {}
    for c in untested:
        rows.setdefault(c.row.recipe.title, []).append(c.difference.mean)
    each = []
    for title, means in rows.items():
        ends = dict.fromkeys(scale.text(end, sign=True) for end in (min(means), max(means)))
        each.append(f"{' to '.join(ends)}{scale.points} ({title})")
    yield (
        f"Over {blocks_text(analysis, blocks)} the trained models differ on these items from "
        f"{analysis.reference}'s by {named(each)}; whether that changes is not tested."
    )
    yield seeds_note(untested)
