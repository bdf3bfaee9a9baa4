"""Sequences of unlike length in batches: cut where it costs least, in training and in scoring."""

from __future__ import annotations

from collections.abc import Sequence

FORWARD_OVERHEAD_TOKENS = 64  # what a forward costs beside its tokens


def cut(lengths: Sequence[int], tokens: int) -> list[slice]:
    """Batches of sequences whose ``lengths`` fall, of at most ``tokens`` with their padding (or of one sequence).

    A batch costs its padded tokens and a fixed price for the forward itself, so that sequences of like length stay
    together and a long one does not pad short ones. The cuts that cost least are found exactly, by dynamic programming.
    """
    best: list[tuple[int, int]] = [(0, 0)]  # for every beginning of the lengths: least cost, start of its last batch
    for end in range(1, len(lengths) + 1):
        least: tuple[int, int] | None = None
        for start in range(end - 1, -1, -1):
            padded = lengths[start] * (end - start)
            if padded > tokens and end - start > 1:
                break
            cost = best[start][0] + padded + FORWARD_OVERHEAD_TOKENS
            if least is None or cost <= least[0]:
                least = cost, start
        assert least is not None
        best.append(least)
    batches: list[slice] = []
    end = len(lengths)
    while end:
        start = best[end][1]
        batches.append(slice(start, end))
        end = start
    return batches[::-1]
