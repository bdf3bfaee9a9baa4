"""Requests for tests of scoring: token ids of contexts that share prefixes, and of their continuations."""

from __future__ import annotations

import random

from mosld_bench.inputs.encoding import Request


def story_requests(count: int = 40, seed: int = 0) -> list[Request]:
    """Stories with questions with options, some contexts equal, and the first two requests once more at the end."""
    rng = random.Random(seed)

    def draw(low: int, high: int) -> list[int]:
        return [rng.randint(3, 40) for _ in range(rng.randint(low, high))]

    requests: list[Request] = []
    while len(requests) < count:
        story = draw(5, 20)
        for _ in range(rng.randint(1, 3)):
            question = story + draw(2, 8)
            requests += [Request(question, draw(1, 4)) for _ in range(4)]
    return requests[:count] + requests[:2]
