"""Requests as prefix trees: what they share stands once. Pure data, no model and no tensor.

The options of a question share its prompt, the questions on one story share the story, all requests of a task share its
few-shot examples. :func:`plant` cuts the tree of all requests into trees small enough for one row of a forward. A long
prefix that many of them begin with becomes a trunk: computed once, its keys and values kept, and not repeated in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mosld_bench.inputs.encoding import Request, common_start

#: What a trunk costs beside its tokens: a forward of its own, and batches that no other tree joins.
TRUNK_OVERHEAD_TOKENS = 256


class Place(NamedTuple):
    """Where a tree has the answer of a request: the nodes whose logits predict its continuation, token by token."""

    request: int  # index
    nodes: list[int]


@dataclass
class Tree:
    """A prefix tree laid out depth first, so that a node's descendants are the run of nodes behind it."""

    tokens: list[int] = field(default_factory=list)  # node -> token id
    depth: list[int] = field(default_factory=list)  # node -> tokens between the begin of the tree and it
    end: list[int] = field(default_factory=list)  # node -> one past its last descendant
    places: list[Place] = field(default_factory=list)
    _path: list[int] = field(default_factory=list)  # nodes of the request that was added last

    def add(self, request: int, *, shared: int, rest: Sequence[int], predicting: int) -> None:
        """Add a request's input: the first ``shared`` tokens of the one before, then the tokens ``rest``.

        The logits of its last ``predicting`` nodes predict the continuation.
        """
        del self._path[shared:]
        for token in rest:
            node = len(self.tokens)
            self.tokens.append(token)
            self.depth.append(len(self._path))
            self.end.append(node)
            self._path.append(node)
        for node in self._path:
            self.end[node] = len(self.tokens)
        self.places.append(Place(request, self._path[len(self._path) - predicting :]))


@dataclass(frozen=True)
class Trunk:
    """A prefix that is computed once, and the trees that go on from it. Without tokens, they begin a text."""

    tokens: list[int]
    trees: list[Tree]


def plant(requests: Sequence[Request], width: int, overhead: int = TRUNK_OVERHEAD_TOKENS) -> list[Trunk]:
    """All requests as trees of at most ``width`` nodes (more only where a single request is longer).

    The first trunk has no tokens. ``overhead``: how many tokens another one must save.
    """
    forest = _Forest(requests, width)
    trunks = [Trunk([], [])]
    first_free = 0
    for stretch in forest.trunks(overhead):
        trunks[0].trees.extend(forest.trees(first_free, stretch.low, begin=0))
        prefix = forest.inputs[stretch.low][: stretch.length]
        trunks.append(Trunk(prefix, list(forest.trees(stretch.low, stretch.high, begin=stretch.length))))
        first_free = stretch.high
    trunks[0].trees.extend(forest.trees(first_free, len(forest.order), begin=0))
    return trunks


class _TrunkStretch(NamedTuple):
    """A possible trunk: the stretch of sorted inputs that begin with it."""

    low: int  # the first input
    high: int  # one past the last
    length: int  # tokens of the trunk
    saved: int  # tokens, its own and its overhead subtracted


class _OpenStretch(NamedTuple):
    """A stretch of sorted inputs whose end is not known yet."""

    common: int  # tokens that all of them begin with
    first: int  # the first input
    inside: list[_TrunkStretch]  # the best trunks of its part so far


class _Forest:
    """The sorted inputs and how long each begins like the one before it; a stretch of them is a subtree or several."""

    def __init__(self, requests: Sequence[Request], width: int) -> None:
        inputs = [request.context + request.continuation[:-1] for request in requests]
        self.width = width
        self.order = sorted(range(len(requests)), key=inputs.__getitem__)
        self.inputs = [inputs[index] for index in self.order]
        self.predicting = [len(requests[index].continuation) for index in self.order]
        self.common = [0, *map(common_start, self.inputs, self.inputs[1:])][: len(inputs)]  # with the one before
        self._until = [0]  # nodes of the tree of all inputs up to one
        for sequence, shared in zip(self.inputs, self.common, strict=True):
            self._until.append(self._until[-1] + len(sequence) - shared)

    def nodes(self, low: int, high: int) -> int:
        """Nodes of the tree of inputs ``low`` to ``high``."""
        return self._until[high] - self._until[low] + self.common[low] if low < high else 0

    def trunks(self, overhead: int) -> list[_TrunkStretch]:
        """The trunks that save most, in order and apart from each other.

        Every stretch of inputs with a common prefix is considered, inner ones first: it becomes a trunk where that
        saves more than the trunks inside it.
        """
        open_stretches = [_OpenStretch(common=0, first=0, inside=[])]
        for index in range(1, len(self.inputs) + 1):
            common = self.common[index] if index < len(self.inputs) else 0
            first = index - 1
            inside: list[_TrunkStretch] = []
            while open_stretches[-1].common > common:
                length, first, earlier = open_stretches.pop()
                inside = self._better(first, index, length=length, inside=earlier + inside, overhead=overhead)
            if open_stretches[-1].common < common:
                open_stretches.append(_OpenStretch(common, first, inside))
            else:
                open_stretches[-1].inside.extend(inside)
        return open_stretches[0].inside

    def _better(
        self, low: int, high: int, *, length: int, inside: list[_TrunkStretch], overhead: int
    ) -> list[_TrunkStretch]:
        """The trunk of a stretch, or those ``inside`` it: whichever saves more."""
        least = max(1, overhead // 16)
        if length < least or self.nodes(low, high) <= self.width:
            return inside
        # Logits of a trunk are not kept: it must end before the first place that one of its requests needs.
        length = min(length, *(len(self.inputs[i]) - self.predicting[i] for i in range(low, high)))
        if length < least:
            return inside
        saved = self._cost(low, high, begin=0) - self._cost(low, high, begin=length) - length - overhead
        if saved > sum(stretch.saved for stretch in inside):
            return [_TrunkStretch(low, high, length, saved)]
        return inside

    def _cost(self, low: int, high: int, *, begin: int) -> int:
        """Nodes of all trees of a stretch."""
        return sum(self.nodes(first, end) - begin for first, end in self._cuts(low, high, begin))

    def trees(self, low: int, high: int, *, begin: int) -> Iterator[Tree]:
        """Inputs ``low`` to ``high`` from token ``begin`` on."""
        for first, end in self._cuts(low, high, begin):
            tree = Tree()
            for index in range(first, end):
                shared = begin if index == first else self.common[index]
                tree.add(
                    self.order[index],
                    shared=shared - begin,
                    rest=self.inputs[index][shared:],
                    predicting=self.predicting[index],
                )
            yield tree

    def _cuts(self, low: int, high: int, begin: int) -> Iterator[tuple[int, int]]:
        """A stretch in parts of ``width`` nodes at most, cut where neighbours have least in common."""
        while low < high:
            end, longest = low + 1, len(self.inputs[low])
            while end < high:
                longest = max(longest, len(self.inputs[end]))
                if self.nodes(low, end + 1) - begin > max(self.width, longest - begin):
                    break
                end += 1
            if end < high:
                end = min(range(low + 1, end + 1), key=lambda index: (self.common[index], -index))
            yield low, end
            low = end
