"""Scoring continuations with every shared prefix computed once.

A tree of requests (see `prefix_tree.py`) is one row of a forward: a node sees itself and its ancestors, which one
comparison makes into the attention mask, and its position is its depth. Trees that grow from a trunk see its keys and
values besides, kept from a forward of its own; so are those of virtual tokens, from which all trees grow.
Log-likelihoods are those of scoring every request by itself (:func:`score_plain`), up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mosld_bench.compat.peft import learned_prompt
from mosld_bench.compat.transformers import KeptPrefix, growing_cache, with_cache
from mosld_bench.errors import OutOfMemoryError, first_line
from mosld_bench.inputs.encoding import Request
from mosld_bench.trial.batching import cut
from mosld_bench.trial.device import is_out_of_memory
from mosld_bench.trial.logits import logits_at, padded
from mosld_bench.trial.prefix_tree import TRUNK_OVERHEAD_TOKENS, Tree, plant
from mosld_bench.trial.router_log import Counts

Score = tuple[float, bool]  # log-likelihood of the continuation in nats; whether greedy decoding would give it


class CannotPackError(Exception):
    """A model that does not take what packed scoring gives it: a mask of four dimensions, positions, kept keys."""


@dataclass
class Work:
    """Tokens that scoring took, against one forward for every request."""

    requests: int = 0
    plain: int = 0  # tokens that one forward for every request would take
    computed: int = 0  # tokens that were computed, shared prefixes once

    def count(self, requests: Sequence[Request]) -> None:
        """Add ``requests``, but not what was computed for them."""
        self.requests += len(requests)
        self.plain += sum(len(request.context) + len(request.continuation) - 1 for request in requests)


class _Columns(NamedTuple):
    """Where the logits that predict a request's continuation stand in a batch: a row, and a column for each token."""

    row: int
    request: int  # index
    columns: list[int]


@torch.no_grad()
def score_packed(
    model: nn.Module,
    requests: Sequence[Request],
    *,
    pad: int,
    tokens: int,
    width: int,
    work: Work | None = None,
    counts: Counts | None = None,
    trunk_overhead: int = TRUNK_OVERHEAD_TOKENS,
) -> list[Score]:
    """Score ``requests`` as prefix trees of at most ``width`` nodes, up to ``tokens`` padded nodes a forward.

    ``pad``: token id that fills the rows. ``counts``: what is counted of the inputs of ``requests``, while they are
    scored. ``trunk_overhead``: how many tokens a trunk must save. Raises CannotPackError
    where the model does not take its inputs, OutOfMemoryError where the device is full, and ValueError for a
    continuation without a token, which would be certain. A model that computes what is no number spoils every request
    of the same row; `score_plain` tells which it is.
    """
    _check_tokens(requests)
    work, counts = Work() if work is None else work, counts or Counts()
    scores: list[Score] = [(0.0, True)] * len(requests)
    with _may_refuse(model):
        bare, root = rooted(model)
    for trunk in plant(requests, width, trunk_overhead):
        with _may_refuse(model), counts.trunk(trunk.trees, len(trunk.tokens)):
            kept = _extended(bare, root, trunk.tokens) if trunk.tokens else root
        trees = sorted(trunk.trees, key=lambda tree: -len(tree.tokens))
        for batch in (trees[piece] for piece in cut([len(tree.tokens) for tree in trees], tokens)):
            places = [_Columns(row, *place) for row, tree in enumerate(batch) for place in tree.places]
            inputs = _inputs(batch, kept, pad, *device_and_dtype(model))
            cache = with_cache(bare, kept.lent()) if kept else {}
            with _may_refuse(model), counts.trees(batch, len(trunk.tokens)):
                _score_batch(bare, places, requests, scores, **inputs, **cache)
        work.computed += len(trunk.tokens) + sum(len(tree.tokens) for tree in trunk.trees)
    work.count(requests)
    return scores


@torch.no_grad()
def score_plain(
    model: nn.Module,
    requests: Sequence[Request],
    *,
    pad: int,
    tokens: int,
    work: Work | None = None,
    counts: Counts | None = None,
) -> list[Score]:
    """Score every request by itself, batched by length: for models and adapters whose mask cannot be replaced.

    ``pad``: token id that fills the rows; ``tokens``: most padded tokens a forward; ``counts``: as in `score_packed`. A
    log-likelihood that is no number is given as NaN, and the others beside it as they are. Raises ValueError for a
    continuation without a token.
    """
    _check_tokens(requests)
    work, counts = Work() if work is None else work, counts or Counts()
    device, _ = device_and_dtype(model)
    scores: list[Score] = [(0.0, True)] * len(requests)
    inputs = [request.context + request.continuation[:-1] for request in requests]
    order = sorted(range(len(requests)), key=lambda index: -len(inputs[index]))
    for batch in (order[piece] for piece in cut([len(inputs[index]) for index in order], tokens)):
        ids, mask = padded([inputs[index] for index in batch], pad, device)
        places = [
            _Columns(row, index, _last(len(requests[index].continuation), of=len(inputs[index])))
            for row, index in enumerate(batch)
        ]
        with counts.rows(batch, [len(inputs[index]) for index in batch], ids.shape[1]):
            _score_batch(model, places, requests, scores, input_ids=ids, attention_mask=mask)
        work.computed += sum(len(inputs[index]) for index in batch)
    work.count(requests)
    return scores


def _check_tokens(requests: Sequence[Request]) -> None:
    if not all(request.context and request.continuation for request in requests):
        raise ValueError("What is scored has a token, and so has what stands before it.")


def _last(count: int, *, of: int) -> list[int]:
    """The last ``count`` of ``of`` columns: what they say of the next token is what a continuation asks for."""
    return list(range(of - count, of))


def _score_batch(
    model: nn.Module,
    places: Sequence[_Columns],
    requests: Sequence[Request],
    scores: list[Score],
    **inputs: Any,
) -> None:
    """One forward on ``inputs``; the scores of the requests at ``places`` go into ``scores``."""
    device = inputs["input_ids"].device
    rows = torch.tensor([row for row, _, columns in places for _ in columns], device=device)
    columns = torch.tensor([column for _, _, columns in places for column in columns], device=device)
    continuations = [token for _, request, _ in places for token in requests[request].continuation]
    targets = torch.tensor(continuations, device=device)
    owner = torch.tensor([i for i, (_, _, columns) in enumerate(places) for _ in columns], device=device)
    logits = logits_at(model, rows, columns, exact=True, **inputs).float()
    logp = logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=1)
    greedy = logits.argmax(dim=1) == targets
    sums = torch.zeros(len(places), dtype=torch.float64, device=device).index_add_(0, owner, logp.double())
    misses = torch.zeros(len(places), device=device).index_add_(0, owner, (~greedy).float())
    for place, value, missed in zip(places, sums.tolist(), misses.tolist(), strict=True):
        scores[place.request] = (value, missed == 0)


@contextmanager
def _may_refuse(model: nn.Module) -> Iterator[None]:
    """Around forwards of packed scoring: what a model raises at them says that it cannot be packed.

    But for a lack of memory, which says nothing of the kind and is raised as OutOfMemoryError: the model would else be
    scored the slow way, and by other batches than its neighbours of the same study, for as long as the process lives.
    """
    try:
        yield
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"The memory of {device_and_dtype(model)[0].type} does not suffice to score ({first_line(error)}). "
                f"Lower resources.score_tokens or resources.score_width (--set resources.score_tokens=2048), or run "
                f"fewer trials side by side."
            ) from error
        raise CannotPackError(f"{type(error).__name__}: {first_line(error)}") from error


def _inputs(
    batch: Sequence[Tree], kept: KeptPrefix | None, pad: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """What the model is called with for a batch of trees that grow from the keys and values ``kept``.

    ``attention_mask``: (trees, 1, nodes, kept tokens + nodes), 0 where a node sees another, else the least number of
    ``dtype``; ``input_ids`` and ``position_ids``: (trees, nodes).
    """
    begin = kept.tokens if kept else 0
    ids, ends, positions = laid_out(batch, begin, pad, device)
    size = ids.shape[1]
    node = torch.arange(size, device=device)
    sees = (node[:, None] >= node[None, :]) & (node[:, None] < ends[:, None, :])
    bias = torch.zeros(len(batch), 1, size, begin + size, dtype=dtype, device=device)
    bias[:, 0, :, begin:].masked_fill_(~sees, torch.finfo(dtype).min)
    return {"input_ids": ids, "attention_mask": bias, "position_ids": positions}


def laid_out(batch: Sequence[Tree], begin: int, pad: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, ends and positions of a batch of trees, each (trees, nodes), padded on the right.

    A node is seen by the nodes from itself on and before its end. ``begin``: the position of a tree's first node.
    """
    ids, _ = padded([tree.tokens for tree in batch], pad, device)
    size = ids.shape[1]
    ends = torch.arange(1, size + 1).repeat(len(batch), 1)  # padding sees itself only
    positions = torch.full((len(batch), size), begin)
    for row, tree in enumerate(batch):
        ends[row, : len(tree.end)] = torch.tensor(tree.end)
        positions[row, : len(tree.depth)] = torch.tensor(tree.depth) + begin
    return ids, ends.to(device), positions.to(device)


def _extended(model: nn.Module, root: KeptPrefix | None, tokens: Sequence[int]) -> KeptPrefix:
    """Keys and values of ``tokens`` after those of ``root``."""
    device, begin = device_and_dtype(model)[0], root.tokens if root else 0
    cache = growing_cache(root.layers if root else ())
    last = torch.tensor([len(tokens) - 1], device=device)
    logits_at(
        model, torch.zeros_like(last), last, input_ids=torch.tensor([list(tokens)], device=device),
        position_ids=torch.arange(begin, begin + len(tokens), device=device)[None], **with_cache(model, cache),
    )  # fmt: skip
    return KeptPrefix.of(cache)


def rooted(model: nn.Module) -> tuple[nn.Module, KeptPrefix | None]:
    """The model without its virtual tokens, and their keys and values (prefix-tuning learns these themselves)."""
    prompt = learned_prompt(model)
    if prompt is None:
        return model, None
    bare = model.get_base_model()  # type: ignore[operator]
    if isinstance(prompt, Tensor):  # embeddings that stand before the text (prompt-tuning, P-tuning)
        embeddings, prompt = prompt.to(device_and_dtype(model)[1]), growing_cache()
        bare(inputs_embeds=embeddings, logits_to_keep=1, **with_cache(bare, prompt))
    return bare, KeptPrefix.of(prompt)


def device_and_dtype(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where the model's inputs go, and what it computes in: those of its input embeddings."""
    embeddings = model.get_input_embeddings().weight  # type: ignore[operator, union-attr]
    return embeddings.device, embeddings.dtype  # type: ignore[return-value]
