"""Requests as prefix trees: what they share stands once. Pure data, no model and no tensor.

The options of a question share its prompt, the questions on one story share the story, all requests of a task share its
few-shot examples. :func:`plant` cuts the tree of all requests into trees small enough for one row of a forward. A long
prefix that many of them begin with becomes a trunk: computed once, its keys and values kept, and not repeated in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Request = tuple[list[int], list[int]]  # token ids of the context (at least one) and of the continuation

#: What a trunk costs beside its tokens: a forward of its own, and batches that no other tree joins.
TRUNK_OVERHEAD_TOKENS = 256


@dataclass
class Tree:
    """A prefix tree laid out depth first, so that a node's descendants are the run of nodes behind it."""

    tokens: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)  # one past the last descendant
    places: list[tuple[int, list[int]]] = field(default_factory=list)  # request -> nodes whose logits it needs
    _path: list[int] = field(default_factory=list)

    def add(self, request: int, shared: int, fresh: Sequence[int], needed: int) -> None:
        """Add a request's input: the first ``shared`` tokens of the one before, then ``fresh`` ones.

        The logits of its last ``needed`` nodes predict the continuation.
        """
        del self._path[shared:]
        for token in fresh:
            node = len(self.tokens)
            self.tokens.append(token)
            self.depth.append(len(self._path))
            self.end.append(node)
            self._path.append(node)
        for node in self._path:
            self.end[node] = len(self.tokens)
        self.places.append((request, self._path[len(self._path) - needed :]))


@dataclass(frozen=True)
class Trunk:
    """A prefix that is computed once, and the trees that go on from it. Without tokens, they begin a text."""

    tokens: list[int]
    trees: list[Tree]


def plant(requests: Sequence[Request], width: int, price: int = TRUNK_OVERHEAD_TOKENS) -> list[Trunk]:
    """All requests as trees of at most ``width`` nodes (more only where a single request is longer).

    The first trunk has no tokens. ``price``: how many tokens another one must save.
    """
    forest = _Forest(requests, width)
    trunks = [Trunk([], [])]
    free = 0
    for low, high, length, _ in forest.worthwhile(price):
        trunks[0].trees.extend(forest.trees(free, low, 0))
        trunks.append(Trunk(forest.inputs[low][:length], list(forest.trees(low, high, length))))
        free = high
    trunks[0].trees.extend(forest.trees(free, len(forest.order), 0))
    return trunks


class _Forest:
    """The sorted inputs and how long each begins like the one before it; a stretch of them is a subtree or several."""

    def __init__(self, requests: Sequence[Request], width: int) -> None:
        inputs = [context + continuation[:-1] for context, continuation in requests]
        self.width = width
        self.order = sorted(range(len(requests)), key=inputs.__getitem__)
        self.inputs = [inputs[index] for index in self.order]
        self.needed = [len(requests[index][1]) for index in self.order]
        self.common = [0, *map(_common, self.inputs, self.inputs[1:])][: len(inputs)]  # with the one before
        self._until = [0]  # nodes of the tree of all inputs up to one
        for sequence, shared in zip(self.inputs, self.common, strict=True):
            self._until.append(self._until[-1] + len(sequence) - shared)

    def nodes(self, low: int, high: int) -> int:
        """Nodes of the tree of inputs ``low`` to ``high``."""
        return self._until[high] - self._until[low] + self.common[low] if low < high else 0

    def worthwhile(self, price: int) -> list[_Found]:
        """The trunks that save most, in order and apart from each other.

        Every stretch of inputs with a common prefix is looked at, inner ones first: it becomes a trunk where that saves
        more than the trunks inside it.
        """
        stretches: list[tuple[int, int, list[_Found]]] = [(0, 0, [])]  # still open: common prefix, first, trunks inside
        for index in range(1, len(self.inputs) + 1):
            common = self.common[index] if index < len(self.inputs) else 0
            first = index - 1
            inside: list[_Found] = []
            while stretches[-1][0] > common:
                length, first, found = stretches.pop()
                inside = self._better(first, index, length, found + inside, price)
            if stretches[-1][0] < common:
                stretches.append((common, first, inside))
            else:
                stretches[-1][2].extend(inside)
        return stretches[0][2]

    def _better(self, low: int, high: int, length: int, inside: list[_Found], price: int) -> list[_Found]:
        """The trunk of a stretch, or those ``inside`` it: whichever saves more."""
        least = max(1, price // 16)
        if length < least or self.nodes(low, high) <= self.width:
            return inside
        # Logits of a trunk are not kept: it must end before the first place that one of its requests needs.
        length = min(length, *(len(self.inputs[i]) - self.needed[i] for i in range(low, high)))
        if length < least:
            return inside
        saved = self._cost(low, high, 0) - self._cost(low, high, length) - length - price
        return [_Found(low, high, length, saved)] if saved > sum(one.saved for one in inside) else inside

    def _cost(self, low: int, high: int, begin: int) -> int:
        """Nodes of all trees of a stretch."""
        return sum(self.nodes(*ends) - begin for ends in self._cuts(low, high, begin))

    def trees(self, low: int, high: int, begin: int) -> Iterator[Tree]:
        """Inputs ``low`` to ``high`` from token ``begin`` on."""
        for first, end in self._cuts(low, high, begin):
            tree = Tree()
            for place in range(first, end):
                shared = begin if place == first else self.common[place]
                tree.add(self.order[place], shared - begin, self.inputs[place][shared:], self.needed[place])
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
                end = min(range(low + 1, end + 1), key=lambda place: (self.common[place], -place))
            yield low, end
            low = end


class _Found(NamedTuple):
    """A trunk: the stretch of inputs that begin with it, its tokens, and how many others it saves."""

    low: int
    high: int
    length: int
    saved: int


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two inputs begin with alike."""
    for length, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return length
    return min(len(one), len(other))
