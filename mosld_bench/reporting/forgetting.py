"""What training made a model forget: the loss a token of a held-out text after training, minus that of the frozen base.

The unit is nats a token, and more is worse. A row's value at a seed is that of its model, or in the setting ``single``
the mean over the models of all tasks. The interval is `stats.alone`'s, over seeds and documents. A loss a token is the
quotient of a sum of nats and a sum of tokens, so that a document d of t tokens counts in the noise with how far it is
from the quotient R, (nats_d - R t_d) n / Σ t over n documents, and not with its length (the delta method).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mosld_bench.records.record import Record, TextLoss
from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.rows import Row

NATS_DIGITS = 3  # after the point


@dataclass(frozen=True)
class Forgetting:
    """How many nats a token more the held-out text costs a row than the frozen base, whose own loss is ``before``."""

    row: Row
    before: float
    by_seed: dict[int, float]
    more: stats.Estimate

    @property
    def after(self) -> float:
        """The loss after training, mean over seeds."""
        return self.before + self.more.mean


def forgetting(analysis: Analysis, rows: Sequence[Row]) -> list[Forgetting]:
    """What the trained ``rows`` forgot, in their order, without those that have no loss, or whose base has none."""
    found = []
    for row in rows:
        before = base_loss(analysis, row)
        losses = _by_seed(analysis, row)
        if before is None or before.nats_per_token is None or not losses:
            continue
        pool = [other for other in analysis.trained if other.condition == row.condition]
        by_seed = {seed: _mean(of_seed) - before.nats_per_token for seed, of_seed in losses.items()}
        more = stats.alone(
            list(by_seed.values()),
            _documents(losses, before),
            borrowed=stats.spread_of_rows(_table(analysis, pool)),
            within=_within(analysis, pool, before) if len(by_seed) == 1 else None,
        )
        found.append(Forgetting(row, before.nats_per_token, by_seed, more))
    return found


def base_loss(analysis: Analysis, row: Row) -> TextLoss | None:
    """The loss of the untrained model that a row starts from; None where no record has it."""
    base = analysis.frozen_of(row.condition)
    return next(filter(None, map(text_loss, base.records)), None) if base else None


def text_loss(record: Record) -> TextLoss | None:
    """What a record notes of the held-out text; None where it notes none, or one that is no number."""
    loss = record.eval_info.text if record.eval_info else None
    return loss if loss and loss.nats_per_token is not None else None


def measured(analysis: Analysis) -> bool:
    """Whether any trained row of the report tells what it forgot."""
    return bool(forgetting(analysis, analysis.trained))


def text_title(analysis: Analysis) -> str:
    """The name of the held-out text, as tables print it."""
    return analysis.title(analysis.study.evaluate.text or "")


def nats(value: float) -> str:
    """A difference of nats a token: '+0.120', with a true minus and no signed zero."""
    text = f"{value:+.{NATS_DIGITS}f}".replace("-", "−")
    return text if float(f"{value:.{NATS_DIGITS}f}") else f"{0:.{NATS_DIGITS}f}"


def _by_seed(analysis: Analysis, row: Row) -> dict[int, list[TextLoss]]:
    """Seed -> the losses of its models, where each has one; in the setting ``single`` there is a model a task."""
    models = len(analysis.study.in_domain) if row.setting == "single" else 1
    losses: dict[int, list[TextLoss]] = {}
    for record in sorted(row.records, key=lambda record: record.trial.seed):
        if loss := text_loss(record):
            losses.setdefault(record.trial.seed, []).append(loss)
    return {seed: of_seed for seed, of_seed in losses.items() if len(of_seed) == models}


def _mean(losses: Sequence[TextLoss]) -> float:
    return float(np.mean([loss.nats_per_token for loss in losses if loss.nats_per_token is not None]))


def _documents(losses: dict[int, list[TextLoss]], before: TextLoss) -> list[stats.TaskItems] | None:
    """Seeds × documents, whose means are the differences by seed; None where documents are not known one by one."""
    every = [before, *(loss for of_seed in losses.values() for loss in of_seed)]
    if not before.document_tokens or any(loss.document_tokens != before.document_tokens for loss in every):
        return None
    tokens = np.array(before.document_tokens, dtype=np.float64)
    nats = np.array([np.mean([loss.document_nats for loss in of_seed], axis=0) for of_seed in losses.values()])
    more = nats - np.array(before.document_nats)
    quotients = more.sum(axis=1, keepdims=True) / tokens.sum()
    return [stats.TaskItems(quotients + (more - quotients * tokens) * len(tokens) / tokens.sum())]


def _table(analysis: Analysis, pool: Sequence[Row]) -> stats.Floats:
    """The losses of rows × seeds, NaN where a row lacks a seed."""
    rows = [{seed: _mean(of_seed) for seed, of_seed in _by_seed(analysis, row).items()} for row in pool]
    seeds = sorted({seed for row in rows for seed in row})
    return np.array([[row.get(seed, np.nan) for seed in seeds] for row in rows], dtype=np.float64)


def _within(analysis: Analysis, pool: Sequence[Row], before: TextLoss) -> float | None:
    """Mean of S·VE over the rows that have two seeds or more: what documents add to the noise of seeds."""
    found = []
    for losses in (_by_seed(analysis, row) for row in pool):
        items = _documents(losses, before) if len(losses) > 1 else None
        noise = stats.item_noise(items) if items else None
        found += [len(losses) * noise.within] if noise and noise.within is not None else []
    return float(np.mean(found)) if found else None
