"""The question of what training made the model forget, by the loss of a held-out text."""

from __future__ import annotations

from collections.abc import Iterator

from mosld_bench.format import listed
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.forgetting import NATS_DIGITS, Forgetting, forgetting, nats, text_title
from mosld_bench.reporting.stats import Basis
from mosld_bench.spec.budget import NATIVE
from mosld_bench.spec.trial import Condition

_FEW = 3  # rows that are told one by one; of more the least and the most


def forgotten(analysis: Analysis, block: Condition | None) -> Iterator[str]:
    """How many nats a token more the text costs the rows of a block, and full fine-tuning, than the frozen base."""
    block = block or next((condition for condition, _ in analysis.blocks()), None)
    if block is None:
        return
    beside = block._replace(budget=NATIVE)
    rows = [row for row in analysis.trained if row.condition == block]
    full = [row for row in analysis.trained if row.condition == beside != block and row.recipe.method == "full"]
    told = sorted(forgetting(analysis, rows), key=lambda one: one.more.mean)
    others = forgetting(analysis, full)
    if not told and not others:
        return
    shown = told if len(told) <= _FEW else [told[0], told[-1]]
    parts = [_cost(one, full=not place) for place, one in enumerate([*shown, *others])]
    if len(told) > _FEW:
        parts[:2] = [f"from {parts[0]} to {parts[1]}"]
    yield (
        f"Against the {(told or others)[0].before:.{NATS_DIGITS}f} nats of the frozen base, a token of the held-out "
        f"text ({text_title(analysis)}) costs after training {listed(parts)}."
    )
    if all(one.more.basis is Basis.MODELS for one in told + others):
        yield "These intervals are of the trained models on other documents: one seed says nothing of methods."


def _cost(one: Forgetting, *, full: bool) -> str:
    """'+0.120 nats with LoRA (95 % +0.110 to +0.130)'; not ``full`` without unit and level."""
    low, high = one.more.low, one.more.high
    within = "" if low is None or high is None else f" ({'95 % ' if full else ''}{nats(low)} to {nats(high)})"
    return f"{nats(one.more.mean)}{' nats' if full else ''} with {one.row.recipe.title}{within}"
