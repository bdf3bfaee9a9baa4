"""Whether a method can be on a base model whose weights are rounded as they are loaded (`ModelSpec.load`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mosld_bench.compat.peft import layer_of_weight
from mosld_bench.compat.transformers import linear_layers
from mosld_bench.errors import RoundingError
from mosld_bench.methods import registry
from mosld_bench.methods.base import Method
from mosld_bench.methods.count import attached_shapes, empty_model
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def check_rounded(
    recipe: Recipe, params: Mapping[str, Any], model: ModelSpec, config: PreTrainedConfig, dtype: str
) -> None:
    """Make sure that ``recipe`` at ``params`` can be on ``model``, of ``config``, where its weights are rounded.

    Nothing is built of numbers. ``dtype``: `train.dtype`. Raises RoundingError where it cannot.
    """
    if model.load is None:
        return
    method = registry.get(recipe.method)
    reason = method.why_not_rounded(params, model.load, dtype) or _trains_rounded(method, params, config)
    if reason:
        raise RoundingError(
            f"The recipe {recipe.name!r} cannot be trained on {model.name!r} with model.load: {model.load}: {reason}. "
            f"Leave model.load out, or the recipe."
        )


def _trains_rounded(method: Method, params: Mapping[str, Any], config: PreTrainedConfig) -> str | None:
    """That it trains weights which are rounded, as a clause; None where it trains none of them."""
    import torch

    with torch.device("meta"):
        rounded = frozenset(linear_layers(empty_model(config)))
    model, _ = attached_shapes(method, config, params)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    layers = [layer for layer in map(layer_of_weight, trained) if layer in rounded]
    if not layers:
        return None
    first = f"it trains the weights of {len(layers):,} linear layers (the first: {layers[0]})"
    return f"{first}, and what is rounded cannot be trained"
