"""What is used of transformers beyond its documentation: the layers of its cache, and names on their way out.

Importing this module imports transformers.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.pytorch_utils import Conv1D


@contextmanager
def old_names_allowed() -> Iterator[None]:
    """Ignore FutureWarnings: for calls in which one library uses another's old names, which we cannot change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def cache_argument(model: nn.Module) -> str:
    """The name of the argument of ``model``'s forward that takes kept keys and values.

    ``past_key_values``, and ``cache`` from transformers 5.24 on, where the other name draws a warning. A model with an
    adapter takes anything and hands it on, so that its base is asked.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    parameters = inspect.signature(base.forward).parameters
    return next((name for name in ("past_key_values", "cache") if name in parameters), "past_key_values")


def with_cache(model: nn.Module, cache: Cache) -> dict[str, Any]:
    """The arguments that make ``model``'s forward read ``cache`` and add to it."""
    return {cache_argument(model): cache, "use_cache": True}


@contextmanager
def own_generation_config(model: Any) -> Iterator[None]:
    """Take the generation config of ``model`` away: `generate` fills in from it whatever its caller leaves unsaid.

    Penalties, other end tokens and a temperature of its author would else enter what a task calls greedy.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kept = base.generation_config
    base.generation_config = GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = kept


@dataclass(frozen=True)
class KeptPrefix:
    """Keys and values of a prefix by layer, each (1, heads, tokens, head size)."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, cache: Cache) -> KeptPrefix:
        """What a forward left in ``cache``. Raises TypeError where these are no keys and values."""
        layers = tuple((layer.keys, layer.values) for layer in cache.layers)
        if not layers or not all(isinstance(part, Tensor) for layer in layers for part in layer):
            raise TypeError("the model leaves no keys and values in the cache that it is given")
        return cls(layers)

    @property
    def tokens(self) -> int:
        """How many tokens the prefix has."""
        return self.layers[0][0].shape[-2]

    def lent(self) -> Cache:
        """A cache for one forward of any number of rows, which leaves the prefix as it is."""
        return Cache(layers=[_LentLayer(keys, values) for keys, values in self.layers])


class _LentLayer(DynamicLayer):  # type: ignore[misc]
    """Stands before the keys and values of every row, and forgets these: layer by layer, so that they cost nothing."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of the prefix and the rows' own after them, (rows, heads, tokens, head size)."""
        rows = len(keys)
        return (
            torch.cat([self.keys.expand(rows, -1, -1, -1), keys], dim=-2),
            torch.cat([self.values.expand(rows, -1, -1, -1), values], dim=-2),
        )


def linear_layers(model: nn.Module) -> list[str]:
    """Names of the layers of ``model`` whose weights a quantiser of transformers takes: all linear ones but the last.

    The last is the output's, whose numbers are logits, and which may be the embeddings.
    """
    last = model.get_output_embeddings()  # type: ignore[operator]
    linear = (nn.Linear, Conv1D)
    return [name for name, module in model.named_modules() if isinstance(module, linear) and module is not last]


def growing_cache(layers: Sequence[tuple[Tensor, Tensor]] = ()) -> Cache:
    """A cache that a forward adds its keys and values to, after those of ``layers``."""
    cache = DynamicCache()
    for index, (keys, values) in enumerate(layers):
        cache.update(keys, values, index)
    return cache


def move_kept(cache: Any, layer: int, device: torch.device) -> None:
    """Move the keys and values of ``layer`` in ``cache`` to ``device``; nothing where it is no cache, or has none."""
    kept: Any = cache.layers[layer] if isinstance(cache, Cache) and layer < len(cache.layers) else None
    if isinstance(getattr(kept, "keys", None), Tensor):
        kept.keys, kept.values = kept.keys.to(device), kept.values.to(device)
