"""Scoring continuations with every shared prefix computed once.

The requests of a batch form a prefix tree: the options of a question share its prompt, the questions on one story share
the story. Laid out depth first, a node's descendants are the run of nodes behind it, so one comparison makes the
attention mask (a token sees itself and its ancestors), and a token's position is its depth. Log-likelihoods are those
of scoring every request by itself, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mosld_bench.logits import logits_at, padded

Request = tuple[list[int], list[int]]  # token ids of the context (at least one) and of the continuation
Score = tuple[float, bool]  # log-likelihood of the continuation in nats; whether greedy decoding would give it


@dataclass
class Tree:
    """A prefix tree laid out depth first."""

    tokens: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)  # one past the last descendant
    places: list[tuple[int, list[int]]] = field(default_factory=list)  # request -> nodes whose logits it needs
    _path: list[int] = field(default_factory=list)

    def fresh_tokens(self, sequence: Sequence[int]) -> int:
        """How many nodes ``sequence`` would add."""
        return len(sequence) - self._shared(sequence)

    def add(self, request: int, sequence: Sequence[int], needed: int) -> None:
        """Add a request's input; its last ``needed`` nodes predict the continuation. Requests come sorted."""
        del self._path[self._shared(sequence) :]
        for token in sequence[len(self._path) :]:
            node = len(self.tokens)
            self.tokens.append(token)
            self.depth.append(len(self._path))
            self.end.append(node)
            self._path.append(node)
        for node in self._path:
            self.end[node] = len(self.tokens)
        self.places.append((request, self._path[len(sequence) - needed : len(sequence)]))

    def _shared(self, sequence: Sequence[int]) -> int:
        shared = 0
        for node, token in zip(self._path, sequence, strict=False):
            if self.tokens[node] != token:
                break
            shared += 1
        return shared


def grow(requests: Sequence[Request], width: int) -> list[Tree]:
    """Trees of at most ``width`` nodes (more only for a single request that is longer) over all requests."""
    inputs = [context + continuation[:-1] for context, continuation in requests]
    trees: list[Tree] = []
    for index in sorted(range(len(requests)), key=lambda i: inputs[i]):
        new = not trees or len(trees[-1].tokens) + trees[-1].fresh_tokens(inputs[index]) > width
        if new:
            trees.append(Tree())
        trees[-1].add(index, inputs[index], len(requests[index][1]))
    return trees


@dataclass
class Work:
    """Tokens that scoring took, against one forward for every request."""

    requests: int = 0
    plain: int = 0
    computed: int = 0


@torch.no_grad()
def score_packed(
    model: nn.Module, requests: Sequence[Request], pad: int, tokens: int, width: int, work: Work | None = None
) -> list[Score]:
    """Score ``requests`` as prefix trees of ``width`` nodes, up to ``tokens`` padded nodes a forward."""
    device, dtype = _home(model)
    scores: list[Score] = [(0.0, True)] * len(requests)
    trees = sorted(grow(requests, width), key=lambda tree: -len(tree.tokens))
    for batch in _batches(trees, tokens):
        ids, _ = padded([tree.tokens for tree in batch], pad, device)
        size = ids.shape[1]
        ends = torch.arange(1, size + 1).repeat(len(batch), 1)  # padding sees itself only
        positions = torch.zeros(len(batch), size, dtype=torch.long)
        for row, tree in enumerate(batch):
            ends[row, : len(tree.end)] = torch.tensor(tree.end)
            positions[row, : len(tree.depth)] = torch.tensor(tree.depth)
        node = torch.arange(size, device=device)
        ends = ends.to(device)
        sees = (node[:, None] >= node[None, :]) & (node[:, None] < ends[:, None, :])
        bias = torch.zeros(sees.shape, dtype=dtype, device=device).masked_fill_(~sees, torch.finfo(dtype).min)
        flat = [(row, request, nodes) for row, tree in enumerate(batch) for request, nodes in tree.places]
        _read(
            model, flat, requests, scores,
            input_ids=ids, attention_mask=bias.unsqueeze(1), position_ids=positions.to(device),
        )  # fmt: skip
        if work is not None:
            work.computed += sum(len(tree.tokens) for tree in batch)
    _note(work, requests)
    return scores


@torch.no_grad()
def score_plain(
    model: nn.Module, requests: Sequence[Request], pad: int, tokens: int, work: Work | None = None
) -> list[Score]:
    """Score every request by itself, batched by length: for models and adapters whose mask cannot be replaced."""
    device, _ = _home(model)
    scores: list[Score] = [(0.0, True)] * len(requests)
    inputs = [context + continuation[:-1] for context, continuation in requests]
    order = sorted(range(len(requests)), key=lambda index: -len(inputs[index]))
    for batch in _batches(order, tokens, lambda index: len(inputs[index])):
        ids, mask = padded([inputs[index] for index in batch], pad, device)
        flat = [
            (row, index, list(range(len(inputs[index]) - len(requests[index][1]), len(inputs[index]))))
            for row, index in enumerate(batch)
        ]
        _read(model, flat, requests, scores, input_ids=ids, attention_mask=mask)
        if work is not None:
            work.computed += sum(len(inputs[index]) for index in batch)
    _note(work, requests)
    return scores


def _read(
    model: nn.Module,
    flat: Sequence[tuple[int, int, list[int]]],
    requests: Sequence[Request],
    scores: list[Score],
    **inputs: Tensor,
) -> None:
    """One forward; the scores of the (row, request, columns) in ``flat`` go into ``scores``."""
    device = inputs["input_ids"].device
    rows = torch.tensor([row for row, _, columns in flat for _ in columns], device=device)
    columns = torch.tensor([column for _, _, columns in flat for column in columns], device=device)
    targets = torch.tensor([token for _, request, _ in flat for token in requests[request][1]], device=device)
    owner = torch.tensor([i for i, (_, _, columns) in enumerate(flat) for _ in columns], device=device)
    logits = logits_at(model, rows, columns, exact=True, **inputs).float()
    logp = logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=1)
    greedy = logits.argmax(dim=1) == targets
    sums = torch.zeros(len(flat), dtype=torch.float64, device=device).index_add_(0, owner, logp.double())
    misses = torch.zeros(len(flat), device=device).index_add_(0, owner, (~greedy).float())
    for (_, request, _), value, missed in zip(flat, sums.tolist(), misses.tolist(), strict=True):
        scores[request] = (value, missed == 0)


def _batches(items: Sequence[Any], tokens: int, size: Any = lambda tree: len(tree.tokens)) -> Iterator[list[Any]]:
    """Items, longest first, cut so that no piece takes more than ``tokens`` with its padding (or is one item)."""
    batch: list[Any] = []
    for item in items:
        if batch and size(batch[0]) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _note(work: Work | None, requests: Sequence[Request]) -> None:
    if work is not None:
        work.requests += len(requests)
        work.plain += sum(len(context) + len(continuation) - 1 for context, continuation in requests)


def _home(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    embeddings = model.get_input_embeddings().weight  # type: ignore[operator, union-attr]
    return embeddings.device, embeddings.dtype  # type: ignore[return-value]


def packs(model: nn.Module, requests: Sequence[Request], pad: int, tokens: int, width: int) -> bool:
    """Whether packed scores of this very model equal plain ones, on a few of the requests themselves.

    Asked of every model instead of a list of architectures: a mask that cannot be replaced (state-space layers,
    virtual tokens in front) shows as an error or as other numbers.
    """
    window = getattr(model.config, "sliding_window", None)  # type: ignore[union-attr]
    if window and max(len(context) + len(continuation) for context, continuation in requests) > window:
        return False
    few = list(requests[:8])
    try:
        packed = score_packed(model, few, pad, tokens, width)
    except (TypeError, ValueError, RuntimeError, IndexError, NotImplementedError):
        return False
    plain = score_plain(model, few, pad, tokens)
    scale = 1e-3 if _home(model)[1] == torch.float32 else 5e-2
    return all(abs(a - b) <= scale * max(1.0, abs(b)) for (a, _), (b, _) in zip(packed, plain, strict=True))
