"""Memory of a training trial on a GPU, by part, from shapes alone. An estimate; the CUDA context is not counted.

With P parameters, of which T train, b bytes a number (2 under bfloat16 autocast, else 4), and a micro-batch of
t = min(train.micro_tokens, batch_size * max_length) padded tokens:

    weights       b (P - T) + 4 T    what trains is float32, what is frozen has train.dtype
    pristine      b T                where everything trains, the frozen base of the process stays beside it
    gradients     4 T
    optimizer     8 T                adamw; adafactor keeps a row and a column of each matrix: taken as 1 % of 4 T
    activations   a layer keeps for its backward, a token, with hidden h, keys kv, MLP m:
                    8 h + b (2 h + 2 kv + 3 m)   norms in float32; q and the attention's output; k and v; gate, its
                                                 activation and up
                    4 b h                        adapters: their inputs, with dropout
                    8 h + b (2 h + m)            everything trains: normed values, inputs of all linears (under
                                                 autocast each linear keeps its own: 5 h for 2 h)
                  all layers of it; with gradient checkpointing the input of every layer (b h; 4 h where everything
                  trains) and one layer of it twice, for the gradients on their way. Without training: one layer.
    casts         b T                what trains, in train.dtype, where autocast keeps it until the backward
    logits        14 V               for every answer position, one token in 8: in b and float32, and both gradients
    step          4 T                adamw's scratch while it steps, when activations, casts and logits are gone

The mask over attention scores is taken as never materialised (flash or memory-efficient attention).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mosld_bench.record import Fit
from mosld_bench.study import TrainSpec

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ANSWER_SHARE = 1 / 8  # of the tokens of a micro-batch, answer positions
_LOGIT_BYTES = 14  # 2 + 4 and the gradients 4 + 4


@dataclass(frozen=True)
class Memory:
    """Bytes by part."""

    weights: int
    pristine: int
    gradients: int
    optimizer: int
    activations: int
    casts: int
    logits: int
    step: int

    @property
    def total(self) -> int:
        """The most at any time: within a micro-batch, or while the optimiser steps."""
        lasting = self.weights + self.pristine + self.gradients + self.optimizer
        return lasting + max(self.activations + self.casts + self.logits, self.step)

    def told(self) -> str:
        """The parts in GB, largest first; parts below half a GB are left out."""
        names = {
            "weights": self.weights, "the base kept beside them": self.pristine, "gradients": self.gradients,
            "optimiser states": self.optimizer,
        }  # fmt: skip
        working = self.activations + self.casts + self.logits
        names |= {"activations": working} if working >= self.step else {"the optimiser's step": self.step}
        parts = sorted(((size, name) for name, size in names.items() if size >= 5e8), reverse=True)
        return ", ".join(f"{name} {size / 1e9:.0f}" for size, name in parts)


def memory_of(fit: Fit, config: PreTrainedConfig, spec: TrainSpec, optimizer: str) -> Memory:
    """The memory of training ``fit`` on the model of ``config`` by ``spec``. ``optimizer``: adamw or adafactor."""
    if optimizer not in {"adamw", "adafactor"}:
        raise ValueError(f"{optimizer!r} is no optimizer with known memory; allowed are adamw and adafactor")
    total, trained = fit.total, fit.trainable
    size = 2 if spec.dtype == "bfloat16" else 4
    whole = trained == total
    tokens = min(spec.micro_tokens, spec.batch_size * spec.max_length)
    hidden, layers = config.hidden_size, config.num_hidden_layers
    layer = _layer_bytes(config, size, whole) * tokens
    checkpoints = (4 if whole else size) * hidden * layers * tokens
    activations = layers * layer if trained else layer
    if trained and spec.gradient_checkpointing:
        activations = checkpoints + 2 * layer
    # Under checkpointing each layer is cast anew, and train.py keeps autocast from collecting the copies.
    casts = size * trained if size == 2 and not spec.gradient_checkpointing else 0
    return Memory(
        weights=size * (total - trained) + 4 * trained,
        pristine=size * trained if whole else 0,
        gradients=4 * trained,
        optimizer=8 * trained if optimizer == "adamw" else round(0.04 * trained),
        activations=activations,
        casts=casts,
        logits=round(_LOGIT_BYTES * ANSWER_SHARE * tokens * config.vocab_size),
        step=4 * trained if optimizer == "adamw" else 0,
    )


def _layer_bytes(config: PreTrainedConfig, size: int, whole: bool) -> int:
    """Bytes that one decoder layer keeps for its backward, for one token."""
    hidden = config.hidden_size
    heads = config.num_attention_heads
    keys = hidden * (getattr(config, "num_key_value_heads", None) or heads) // heads
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
    kept = 8 * hidden + size * (2 * hidden + 2 * keys + 3 * inner)
    if not whole:
        return int(kept + size * 4 * hidden)
    return int(kept + 8 * hidden + size * ((5 if size == 2 else 2) * hidden + inner))
