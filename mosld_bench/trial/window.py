"""How many tokens of text a model takes at once."""

from __future__ import annotations

from typing import Any

from torch import nn

from mosld_bench.errors import ModelError
from mosld_bench.methods.live import virtual_tokens

_UNLIMITED = 2048  # tokens that a model without a number of positions is given, as lm-eval gives it
_KEYS = ("n_positions", "max_position_embeddings", "n_ctx")


def window(model: nn.Module) -> int:
    """The positions of ``model``, less those of its virtual tokens. Raises ModelError where less than two are left."""
    config: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]
    positions = next((int(limit) for key in _KEYS if (limit := getattr(config, key, None))), _UNLIMITED)
    virtual = virtual_tokens(model)
    if positions - virtual < 2:
        raise ModelError(
            f"The model has {positions} positions, and the method takes {virtual} of them for virtual tokens, which "
            f"leaves no room for a prompt and an answer. Give the recipe fewer virtual tokens (a smaller budget)."
        )
    return positions - virtual
