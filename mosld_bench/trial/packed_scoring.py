"""Scoring continuations with every shared prefix computed once.

A tree of requests (see `prefix_tree.py`) is one row of a forward: a node sees itself and its ancestors, which one
comparison makes into the attention mask, and its position is its depth. Trees that grow from a trunk see its keys and
values besides, kept from a forward of its own; so are those of virtual tokens, from which all trees grow.
Log-likelihoods are those of scoring every request by itself, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from mosld_bench.errors import OutOfMemoryError
from mosld_bench.methods.live import virtual_tokens
from mosld_bench.trial.batching import cut
from mosld_bench.trial.device import is_out_of_memory
from mosld_bench.trial.logits import logits_at, padded
from mosld_bench.trial.prefix_tree import TRUNK_OVERHEAD_TOKENS, Request, Tree, plant


class CannotPackError(Exception):
    """A model that does not take what packed scoring gives it: a mask of four dimensions, positions, kept keys."""


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
                f"The memory of {_home(model)[0].type} does not suffice to score ({_first_line(error)}). Lower "
                f"resources.score_tokens or resources.score_width (--set resources.score_tokens=2048), or run fewer "
                f"trials side by side."
            ) from error
        raise CannotPackError(f"{type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


Score = tuple[float, bool]  # log-likelihood of the continuation in nats; whether greedy decoding would give it


@dataclass
class Work:
    """Tokens that scoring took, against one forward for every request."""

    requests: int = 0
    plain: int = 0
    computed: int = 0


@torch.no_grad()
def score_packed(
    model: nn.Module,
    requests: Sequence[Request],
    pad: int,
    tokens: int,
    width: int,
    work: Work | None = None,
    price: int = TRUNK_OVERHEAD_TOKENS,
) -> list[Score]:
    """Score ``requests`` as prefix trees of ``width`` nodes, up to ``tokens`` padded nodes a forward.

    ``price``: how many tokens a trunk must save. Raises CannotPackError where the model does not take its inputs, and
    OutOfMemoryError.
    """
    scores: list[Score] = [(0.0, True)] * len(requests)
    with _may_refuse(model):
        bare, root = _rooted(model)
    for trunk in plant(requests, width, price):
        with _may_refuse(model):
            kept = _extended(bare, root, trunk.tokens) if trunk.tokens else root
        trees = sorted(trunk.trees, key=lambda tree: -len(tree.tokens))
        for batch in (trees[piece] for piece in cut([len(tree.tokens) for tree in trees], tokens)):
            flat = [(row, request, nodes) for row, tree in enumerate(batch) for request, nodes in tree.places]
            inputs = _inputs(batch, kept, pad, *_home(model))
            with _may_refuse(model):
                _read(bare, flat, requests, scores, **inputs)
        if work is not None:
            work.computed += len(trunk.tokens) + sum(len(tree.tokens) for tree in trunk.trees)
    _note(work, requests)
    return scores


def _inputs(batch: Sequence[Tree], kept: _Kept | None, pad: int, device: torch.device, dtype: torch.dtype) -> Any:
    """What the model is called with for a batch of trees that grow from what is ``kept``."""
    begin = kept.length if kept else 0
    ids, _ = padded([tree.tokens for tree in batch], pad, device)
    size = ids.shape[1]
    ends = torch.arange(1, size + 1).repeat(len(batch), 1)  # padding sees itself only
    positions = torch.zeros(len(batch), size, dtype=torch.long)
    for row, tree in enumerate(batch):
        ends[row, : len(tree.end)] = torch.tensor(tree.end)
        positions[row, : len(tree.depth)] = torch.tensor(tree.depth)
    node = torch.arange(size, device=device)
    sees = (node[:, None] >= node[None, :]) & (node[:, None] < ends.to(device)[:, None, :])
    bias = torch.zeros(len(batch), 1, size, begin + size, dtype=dtype, device=device)
    bias[:, 0, :, begin:].masked_fill_(~sees, torch.finfo(dtype).min)
    inputs = {"input_ids": ids, "attention_mask": bias, "position_ids": (positions + begin).to(device)}
    return inputs | ({"past_key_values": kept.lent(), "use_cache": True} if kept else {})


@dataclass(frozen=True)
class _Kept:
    """Keys and values of a prefix by layer, (1, heads, tokens, head size)."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, cache: Cache) -> _Kept:
        """What a forward left in ``cache``. Raises CannotPackError where that are no keys and values."""
        layers = tuple((layer.keys, layer.values) for layer in cache.layers)
        if not layers or not all(isinstance(part, Tensor) for layer in layers for part in layer):
            raise CannotPackError("the model leaves no keys and values in the cache that it is given")
        return cls(layers)

    @property
    def length(self) -> int:
        return self.layers[0][0].shape[-2]

    def lent(self) -> Cache:
        """For one forward of any number of rows."""
        return Cache(layers=[_LentLayer(keys, values) for keys, values in self.layers])


class _LentLayer(DynamicLayer):  # type: ignore[misc]
    """Stands before the keys and values of every row, and forgets these: layer by layer, so that they cost nothing."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        before = ((self.keys, keys), (self.values, values))
        both = [torch.cat([old.expand(len(new), -1, -1, -1), new], dim=-2) for old, new in before]
        return both[0], both[1]


def _extended(model: nn.Module, root: _Kept | None, tokens: Sequence[int]) -> _Kept:
    """Keys and values of ``tokens`` after what is kept already."""
    device, begin = _home(model)[0], root.length if root else 0
    cache = DynamicCache()
    for index, (keys, values) in enumerate(root.layers if root else ()):
        cache.update(keys, values, index)
    last = torch.tensor([len(tokens) - 1], device=device)
    logits_at(
        model, torch.zeros_like(last), last, input_ids=torch.tensor([list(tokens)], device=device),
        position_ids=torch.arange(begin, begin + len(tokens), device=device)[None],
        past_key_values=cache, use_cache=True,
    )  # fmt: skip
    return _Kept.of(cache)


def _rooted(model: nn.Module) -> tuple[nn.Module, _Kept | None]:
    """The model without its virtual tokens, and their keys and values (prefix-tuning learns these themselves)."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning:
        return model, None
    bare, prompt = model.get_base_model(), model.get_prompt(1)  # type: ignore[operator]
    if isinstance(prompt, Tensor):  # embeddings that stand before the text (prompt-tuning, P-tuning)
        embeddings, prompt = prompt.to(_home(model)[1]), DynamicCache()
        bare(inputs_embeds=embeddings, past_key_values=prompt, use_cache=True, logits_to_keep=1)
    return bare, _Kept.of(prompt)


@torch.no_grad()
def score_plain(
    model: nn.Module, requests: Sequence[Request], pad: int, tokens: int, work: Work | None = None
) -> list[Score]:
    """Score every request by itself, batched by length: for models and adapters whose mask cannot be replaced."""
    device, _ = _home(model)
    scores: list[Score] = [(0.0, True)] * len(requests)
    inputs = [context + continuation[:-1] for context, continuation in requests]
    order = sorted(range(len(requests)), key=lambda index: -len(inputs[index]))
    for batch in (order[piece] for piece in cut([len(inputs[index]) for index in order], tokens)):
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
    wanted = [token for _, request, _ in flat for token in requests[request][1]]
    if not wanted:  # continuations without a token are certain
        return
    targets = torch.tensor(wanted, device=device)
    owner = torch.tensor([i for i, (_, _, columns) in enumerate(flat) for _ in columns], device=device)
    logits = logits_at(model, rows, columns, exact=True, **inputs).float()
    logp = logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=1)
    if logp.isnan().any():
        raise FloatingPointError("The model gives log-likelihoods that are no numbers, so its answers mean nothing.")
    greedy = logits.argmax(dim=1) == targets
    sums = torch.zeros(len(flat), dtype=torch.float64, device=device).index_add_(0, owner, logp.double())
    misses = torch.zeros(len(flat), device=device).index_add_(0, owner, (~greedy).float())
    for (_, request, _), value, missed in zip(flat, sums.tolist(), misses.tolist(), strict=True):
        scores[request] = (value, missed == 0)


def _note(work: Work | None, requests: Sequence[Request]) -> None:
    if work is not None:
        work.requests += len(requests)
        work.plain += sum(len(context) + len(continuation) - 1 for context, continuation in requests)


def _home(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    embeddings = model.get_input_embeddings().weight  # type: ignore[operator, union-attr]
    return embeddings.device, embeddings.dtype  # type: ignore[return-value]


@dataclass
class PackingCheck:
    """Up to which length of a request it is known whether a model's packed scores are its plain ones.

    The length counts virtual tokens, of which models of one kind have more or fewer.
    """

    length: int = 0
    holds: bool = True

    def covers(self, model: nn.Module, requests: Sequence[Request], pad: int) -> bool:
        """Whether ``requests`` may be packed. Tries the model out where one is longer than any before."""
        longest = max(requests, key=_length, default=([], []))
        length = _length(longest) + virtual_tokens(model)
        if self.holds and length > self.length:
            self.length, self.holds = length, packs(model, longest, pad)
        return self.holds


def _length(request: Request) -> int:
    return len(request[0]) + len(request[1])


def packs(model: nn.Module, longest: Request, pad: int) -> bool:
    """Whether packed scores of this very model equal plain ones, on ``longest`` and on others that fork off from it.

    Asked of every model instead of a list of architectures: a mask that cannot be replaced, attention that reaches back
    so far and no further, positions that cannot be given, a state that is no cache of keys and values (state-space
    layers): all show as an error or as other numbers, though some on a text of full length only. Raises
    OutOfMemoryError: that a device is full says nothing about the model.
    """
    config = model.config.get_text_config()  # type: ignore[operator, union-attr]
    window = getattr(config, "sliding_window", None)
    if window and _length(longest) + virtual_tokens(model) > window:
        return False
    forks = _forks(longest[0] + longest[1])
    try:
        at_once = score_packed(model, forks, pad, tokens=1, width=sum(map(_length, forks)))
        from_trunks = score_packed(model, forks, pad, tokens=1, width=1, price=0)
    except CannotPackError:
        return False
    plain = score_plain(model, forks, pad, tokens=1)
    scale = 1e-3 if _home(model)[1] == torch.float32 else 5e-2
    return all(
        abs(a - b) <= scale * max(1.0, abs(b))
        for scores in (at_once, from_trunks)
        for (a, _), (b, _) in zip(scores, plain, strict=True)
    )


def _forks(text: Sequence[int]) -> list[Request]:
    """``text`` with its last tokens as the continuation; another one, an earlier fork, and one halfway."""
    cut = max(1, len(text) - 4)
    context, answer = list(text[:cut]), list(text[cut:]) or [text[0]]
    other = [next((token for token in context if token != answer[0]), answer[0]), *answer[:-1]]
    early = max(1, cut - 8)
    return [
        (context, answer),
        (context, other),
        (context[:early] + context[early + 1 :], answer),
        (context[: max(1, cut // 2)], other),
    ]
