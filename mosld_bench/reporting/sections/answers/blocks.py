"""The blocks that the answers are about, and what they are called."""

from __future__ import annotations

from mosld_bench.format import listed
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.labels import setting_label
from mosld_bench.reporting.verdicts import all_of
from mosld_bench.spec.budget import Rank
from mosld_bench.spec.trial import Condition, Domain


def main_block(analysis: Analysis) -> Condition | None:
    """The first block whose rows are compared with the reference, or where none are, with the best of them."""
    against_best = (
        condition
        for condition, _ in analysis.blocks()
        if any(analysis.against_best(condition, of) for of in analysis.compared())
    )
    return next(iter(compared_blocks(analysis)), None) or next(against_best, None)


def compared_blocks(analysis: Analysis) -> list[Condition]:
    """The blocks in which a row has a score at a common seed with the reference."""
    found = []
    for condition, _ in analysis.blocks():
        reference = analysis.reference_row(condition)
        others = [row for row in analysis.pool(condition) if reference and row.key != reference.key]
        if reference and any(
            row.by_seed(of).keys() & reference.by_seed(of).keys() for row in others for of in analysis.compared()
        ):
            found.append(condition)
    return found


def where(analysis: Analysis, condition: Condition, *, setting: bool = True) -> str:
    """A block by what tells it from the others: 'rank 8', 'single task, size of lora at rank 8'; empty for the only.

    ``setting``: whether that is named.
    """
    labels = {
        "setting": setting_label(condition.setting),
        "budget": condition.budget.label,
        "model": condition.model.rsplit("/", 1)[-1],
        "general": f"{condition.general:,} general items" if condition.general else "no general items",
        "items": f"{condition.items:,} items a task",
        "rate": f"{condition.rate.replace('_', '-')} learning rates",
    }
    return ", ".join(labels[name] for name in _varying(analysis) if setting or name != "setting")


def blocks_text(analysis: Analysis, count: int) -> str:
    """'all four sizes', or 'both blocks' where they differ in more than one thing."""
    nouns = varied(analysis)
    return all_of(count, "block" if " " in nouns else nouns.removesuffix("s"))


def varied(analysis: Analysis) -> str:
    """What the blocks differ in: 'settings and sizes'."""
    ranks = {isinstance(block.budget, Rank) for block in compared_blocks(analysis)}
    budgets = "sizes and ranks" if len(ranks) > 1 else "ranks" if True in ranks else "sizes"
    nouns = {
        "setting": "settings",
        "budget": budgets,
        "model": "models",
        "general": "amounts of general data",
        "items": "amounts of training items",
        "rate": "learning rates",
    }
    return listed([nouns[name] for name in _varying(analysis)])


def _varying(analysis: Analysis) -> list[str]:
    """The fields of a condition in which the blocks that are compared differ."""
    blocks = compared_blocks(analysis) or [condition for condition, _ in analysis.blocks() if analysis.pool(condition)]
    return [name for name in Condition._fields if len({getattr(block, name) for block in blocks}) > 1]


def on_score(analysis: Analysis, of: Domain | str) -> str:
    """Within a sentence: 'in-domain', 'out of domain', 'on ARC-Easy', and that lower is better where it is."""
    domains = {Domain.IN: "in-domain", Domain.OUT: "out of domain"}
    text = domains[of] if isinstance(of, Domain) else f"on {analysis.title(of)}"
    return text if analysis.scale(of).higher_is_better else f"{text} (lower is better)"


def nothing_to_compare(analysis: Analysis) -> str:
    """Why no two rows are compared, and what there is all the same."""
    rows = [row for row in analysis.trained if row.n]
    ranked = [row for row in rows if row.ranked]
    if not rows:
        return "No trained row has a score on every in-domain task yet."
    scale = analysis.scale(Domain.IN)
    least, most = (pick(rows, key=lambda row: row.score or 0.0) for pick in (min, max))
    means = [f"{scale.text(row.score)}{scale.sign} ({row.recipe.title})" for row in (least, most)]
    told = "" if analysis.unlike(Domain.IN) else f"; in-domain means run from {' to '.join(means)}"
    if len(rows) == 1:
        told = "" if analysis.unlike(Domain.IN) else f", {scale.text(least.score)}{scale.sign} in-domain"
        return f"{least.recipe.title} alone has a score{told}, so there is nothing to compare it with."
    if not ranked:
        return f"No rows are of equal size or equal rank, so none is compared with another{told}."
    if len(ranked) == 1:
        return f"{ranked[0].recipe.title} alone of its size or rank has a score, so it is compared with none{told}."
    return f"No two rows of equal size or equal rank have a seed in common, so none is compared with another{told}."
