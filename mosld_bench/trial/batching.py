"""Sequences of unlike length in batches: cut where it costs least, in training and in scoring."""

from __future__ import annotations

from collections.abc import Sequence

FORWARD = 64  # what a forward costs beside its tokens, in tokens


def cut(lengths: Sequence[int], tokens: int) -> list[slice]:
    """Batches of sequences whose ``lengths`` fall, of at most ``tokens`` with their padding (or of one sequence).

    A batch costs its padded tokens and a fixed price for the forward itself, so that sequences of like length stay
    together and a long one does not pad short ones.
    """
    best: list[tuple[int, int]] = [(0, 0)]  # for every beginning of the lengths: least cost, start of its last batch
    for end in range(1, len(lengths) + 1):
        least: tuple[int, int] | None = None
        for start in range(end - 1, -1, -1):
            padded = lengths[start] * (end - start)
            if padded > tokens and end - start > 1:
                break
            cost = best[start][0] + padded + FORWARD
            if least is None or cost <= least[0]:
                least = cost, start
        assert least is not None
        best.append(least)
    found: list[slice] = []
    end = len(lengths)
    while end:
        start = best[end][1]
        found.append(slice(start, end))
        end = start
    return found[::-1]
