"""Requests as prefix trees: every request is in them whole, and what many share stands once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mosld_bench.inputs.encoding import Request
from mosld_bench.trial.prefix_tree import Tree, plant

REQUESTS = st.lists(
    st.builds(
        Request,
        st.lists(st.integers(0, 2), min_size=1, max_size=12),
        st.lists(st.integers(0, 2), min_size=1, max_size=4),
    ),
    max_size=40,
)


@given(REQUESTS, st.integers(1, 20), st.integers(0, 8))
def test_every_request_is_planted_whole(requests: list[Request], width: int, overhead: int) -> None:
    """Whatever the requests: read along its path, trunk first, each gives its input, its last nodes those it needs."""
    planted: dict[int, list[int]] = {}
    for trunk in plant(requests, width, overhead):
        for tree in trunk.trees:
            longest = max(
                len(requests[place.request].context) + len(requests[place.request].continuation) - 1
                for place in tree.places
            )
            assert len(tree.tokens) <= max(width, longest - len(trunk.tokens))
            for request, nodes in tree.places:
                last = nodes[-1]
                path = [node for node in range(last + 1) if tree.end[node] > last]
                assert [tree.depth[node] for node in path] == list(range(len(path)))
                assert path[-len(nodes) :] == nodes
                planted[request] = trunk.tokens + [tree.tokens[node] for node in path]
                assert len(nodes) == len(requests[request].continuation)
    assert planted == {i: request.context + request.continuation[:-1] for i, request in enumerate(requests)}


def test_tree_layout() -> None:
    (trunk,) = plant([Request([5, 6], [7, 8]), Request([5, 6], [9]), Request([5], [4, 4, 4])], 100)
    (tree,) = trunk.trees
    assert trunk.tokens == []
    assert tree.tokens == [5, 4, 4, 6, 7]
    assert tree.depth == [0, 1, 2, 1, 2]
    assert tree.end == [5, 3, 3, 5, 5]
    assert dict(tree.places) == {2: [0, 1, 2], 1: [3], 0: [3, 4]}
    assert isinstance(tree, Tree)


def test_a_prefix_longer_than_a_tree_becomes_a_trunk() -> None:
    """Few-shot examples are the trunk; the trees behind it have the stories, their questions and options."""
    shots = [3 + i % 40 for i in range(100)]
    stories = [[*shots, 5 + s, *range(3, 18)] for s in range(4)]
    requests = [Request([*story, 30 + q], [o, 7]) for story in stories for q in range(3) for o in range(4, 8)]
    free, trunk = plant(requests, 40)
    assert (free.trees, trunk.tokens) == ([], shots)
    assert [len(tree.tokens) for tree in trunk.trees] == [16 + 3 * (1 + 4)] * 4
