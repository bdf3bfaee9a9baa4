"""Memory of a training trial on a GPU, by part, from shapes alone. An estimate; the CUDA context is not counted.

With P parameters, of which T train, b bytes a number (2 under bfloat16 autocast, else 4), and a micro-batch of
t = min(train.micro_tokens, batch_size * max_length) padded tokens:

    weights       b (P - T) + 4 T    what trains is float32, what is frozen has train.dtype; of a base that is rounded
                                     (model.load) all but the embeddings has q, and the weight of a layer that is
                                     being computed with b as well
                    q = 1/2 + 1/64 + 4/(64 256)  nf4: a byte for every block of 64, 4 for every 256 of those
                    q = 1 + 4/h                  int8: 4 for every row
    pristine      b T                where everything trains, the frozen base of the process stays beside it
    gradients     4 T
    optimizer     8 T                adamw; adafactor keeps a row and a column of each matrix: taken as 1 % of 4 T
    activations   what autograd keeps of the layers of the model with the method on it (`cost.activations`); where that
                  is not known a formula: a layer keeps for its backward, a token, with hidden h, keys kv, MLP m:
                    8 h + b (2 h + 2 kv + 3 m)   norms in float32; q and the attention's output; k and v; gate, its
                                                 activation and up
                    4 b h                        adapters: their inputs, with dropout
                    8 h + b (2 h + m)            everything trains: normed values, inputs of all linears (under
                                                 autocast each linear keeps its own: 5 h for 2 h)
                  The formula is of adapters on queries and values, and tells half of what they keep on all linears.
                  all layers of it; with gradient checkpointing the input of every layer (b h; 4 h where everything
                  trains) and one layer of it twice, for the gradients on their way. Without training: one layer.
    casts         b T                what trains, in train.dtype, where autocast keeps it until the backward; with what
                                     else of the method's is cast, where activations are known
    logits        14 V               for every answer position, one token in 8: in b and float32, and both gradients
    step          4 T                adamw's scratch while it steps, when activations, casts and logits are gone
    scoring       when training is over: b P, b T of a pristine base; one layer, as without training, of
                  resources.score_tokens tokens; logits at every other of them, without gradients (10 V, in float32
                  8 V), of a held-out text at all; under bfloat16 the head in float32 (4 V h)

The mask over attention scores is taken as never materialised (flash or memory-efficient attention).

Over several GPUs (`methods.stages`) each has the parts of its own layers, and the first one embeddings, head and logits
too. What a method trains is taken as spread evenly over the layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.methods.stages import layers_per_device
from mosld_bench.spec.recipe import OPTIMIZERS
from mosld_bench.spec.trial import Fit, Load, TrainSpec

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from mosld_bench.cost.activations import Activations


class UnknownShapeError(BenchError):
    """A model whose configuration lacks a size that the estimates are made of: no transformer, or of other names."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that estimates are made of."""

    hidden: int
    layers: int
    keys: int  # width of the keys, and of the values, of a token
    inner: int  # width of the feed-forward block
    vocabulary: int
    tied: bool  # whether input and output embeddings are one matrix
    load: Load | None = None  # to what its linear layers are rounded

    @classmethod
    def of(cls, config: PreTrainedConfig, load: Load | None = None) -> Shape:
        """The shape of the model of ``config``, loaded so. Raises UnknownShapeError where it lacks one of the sizes."""

        def size(name: str) -> int:
            value = getattr(config, name, None)
            if not isinstance(value, int):
                raise UnknownShapeError(
                    f"The configuration {type(config).__name__} has no whole number {name}, so nothing is estimated "
                    f"for this model."
                )
            return value

        hidden, heads = size("hidden_size"), size("num_attention_heads")
        inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
        return cls(
            hidden=hidden,
            layers=size("num_hidden_layers"),
            keys=hidden * (getattr(config, "num_key_value_heads", None) or heads) // heads,
            inner=int(inner),
            vocabulary=size("vocab_size"),
            tied=bool(getattr(config, "tie_word_embeddings", False)),
            load=load,
        )

    def frozen_bytes(self, numbers: int, number_bytes: int) -> int:
        """Bytes of so many frozen parameters of the model, of which those that are not rounded have ``number_bytes``.

        Of a rounded model with the weight that is computed with at the moment.
        """
        if self.load is None:
            return number_bytes * numbers
        rounded = max(0, numbers - self.vocabulary * self.hidden * (1 if self.tied else 2))
        each = 1 / 2 + 1 / 64 + 4 / (64 * 256) if self.load == "nf4" else 1 + 4 / self.hidden
        return round(number_bytes * (numbers - rounded + self.hidden * self.inner) + each * rounded)


#: The share of a micro-batch's tokens that are an answer's, at which logits are made.
ANSWER_TOKEN_SHARE = 1 / 8
#: Of one logit: in bfloat16 and float32, and the gradients of both in float32.
_LOGIT_BYTES = 2 + 4 + 4 + 4
#: The share of the tokens of a scoring batch that logits are made at, and bytes of one of these by dtype: as it is, in
#: float32, and what its logarithm is taken of.
_SCORED_TOKEN_SHARE = 1 / 2
_SCORED_LOGIT_BYTES = {2: 2 + 4 + 4, 4: 4 + 4}
#: A part below this is left out of a breakdown.
_SMALL_BYTES = 5e8


@dataclass(frozen=True)
class Memory:
    """Bytes by part; see the module for what each holds."""

    weights: int
    pristine: int
    gradients: int
    optimizer: int
    activations: int
    casts: int
    logits: int
    step: int
    scoring: int = 0  # all that there is while items are scored, weights among it

    @property
    def lasting(self) -> int:
        """What stays from step to step of a training."""
        return self.weights + self.pristine + self.gradients + self.optimizer

    @property
    def working(self) -> int:
        """What a micro-batch takes."""
        return self.activations + self.casts + self.logits

    @property
    def total(self) -> int:
        """The most bytes at any time: within a micro-batch, while the optimiser steps, or while items are scored."""
        return max(self.lasting + max(self.working, self.step), self.scoring)

    def breakdown(self) -> str:
        """The parts in GB, largest first, as 'weights 27, gradients 27'; parts below half a GB are left out."""
        if self.total == self.scoring:
            return f"scoring {self.scoring / 1e9:.0f}"
        names = {
            "weights": self.weights, "the base kept beside them": self.pristine, "gradients": self.gradients,
            "optimiser states": self.optimizer,
        }  # fmt: skip
        names |= {"activations": self.working} if self.working >= self.step else {"the optimiser's step": self.step}
        parts = sorted(((size, name) for name, size in names.items() if size >= _SMALL_BYTES), reverse=True)
        return ", ".join(f"{name} {size / 1e9:.0f}" for size, name in parts)


def memory_of(
    fit: Fit,
    shape: Shape,
    spec: TrainSpec,
    *,
    optimizer: str,
    score_tokens: int = 0,
    kept: Activations | None = None,
) -> Memory:
    """The memory of training ``fit`` on a model of ``shape`` by ``spec``, and of scoring it.

    ``optimizer``: adamw or adafactor. ``score_tokens``: of a scoring batch; 0 for no scoring. ``kept``: what the layers
    keep for the backward; None for the formula. Raises UnknownNameError for another optimiser.
    """
    if optimizer not in OPTIMIZERS:
        raise UnknownNameError("optimizer", optimizer, OPTIMIZERS, "A recipe names it.")
    total, trained = fit.total, fit.trainable
    number_bytes = 2 if spec.dtype == "bfloat16" else 4
    trains_all = trained == total
    tokens = min(spec.micro_tokens, spec.batch_size * spec.max_length)
    layer = _layer_bytes(shape, number_bytes=number_bytes, trains_all=trains_all) * tokens
    checkpoints = (4 if trains_all else number_bytes) * shape.hidden * shape.layers * tokens
    all_layers, largest = (kept.total * tokens, kept.largest * tokens) if kept else (shape.layers * layer, layer)
    activations = round(all_layers) if trained else layer
    if trained and spec.gradient_checkpointing:
        activations = checkpoints + round(2 * largest)
    # Under checkpointing each layer is cast anew, and train.py keeps autocast from collecting the copies.
    cast = max(number_bytes * trained if number_bytes == 2 else 0, kept.constant if kept else 0)
    return Memory(
        weights=shape.frozen_bytes(total - trained, number_bytes) + 4 * trained,
        pristine=number_bytes * trained if trains_all else 0,
        gradients=4 * trained,
        optimizer=8 * trained if optimizer == "adamw" else round(0.04 * trained),
        activations=activations,
        casts=0 if spec.gradient_checkpointing else cast,
        logits=round(_LOGIT_BYTES * ANSWER_TOKEN_SHARE * tokens * shape.vocabulary),
        step=4 * trained if optimizer == "adamw" else 0,
        scoring=(
            shape.frozen_bytes(total - trained, number_bytes)
            + number_bytes * trained * (2 if trains_all else 1)
            + scoring_working(shape, number_bytes, score_tokens)
            if score_tokens
            else 0
        ),
    )


def memory_over(
    gpus: int,
    fit: Fit,
    shape: Shape,
    spec: TrainSpec,
    *,
    optimizer: str,
    score_tokens: int = 0,
    kept: Activations | None = None,
) -> Memory:
    """The memory of the fullest of ``gpus`` GPUs that the model lies on; the rest as in `memory_of`."""
    of = partial(memory_of, optimizer=optimizer, score_tokens=score_tokens)
    if gpus == 1:
        return of(fit, shape, spec, kept=kept)
    outside = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    inside = max(1, fit.total - outside)
    first, *others = layers_per_device(shape.layers, gpus, outside / (inside / shape.layers))

    def part(layers: int, besides: int) -> Memory:
        share = layers / shape.layers
        total = round(inside * share) + besides
        trained = total if fit.trainable == fit.total else round(fit.trainable * share)
        own = replace(shape, layers=layers, vocabulary=shape.vocabulary if besides else 0)
        its = kept and replace(kept, total=kept.total * share, constant=round(kept.constant * share))
        return of(fit.model_copy(update={"total": total, "trainable": trained}), own, spec, kept=its)

    return max(part(first, outside), part(max(others), 0), key=lambda memory: memory.total)


def scoring_working(shape: Shape, number_bytes: int, tokens: int, *, text: bool = False) -> int:
    """What a scoring batch of ``tokens`` tokens takes beside the weights; ``text``: of a held-out text."""
    positions = tokens * (1 if text else _SCORED_TOKEN_SHARE)
    layer = _layer_bytes(shape, number_bytes=number_bytes, trains_all=False) * tokens
    head = 4 * shape.vocabulary * shape.hidden if number_bytes == 2 else 0
    return round(layer + head + _SCORED_LOGIT_BYTES[number_bytes] * positions * shape.vocabulary)


def _layer_bytes(shape: Shape, *, number_bytes: int, trains_all: bool) -> int:
    """Bytes that one decoder layer keeps for its backward, for one token."""
    kept = 8 * shape.hidden + number_bytes * (2 * shape.hidden + 2 * shape.keys + 3 * shape.inner)
    if not trains_all:
        return int(kept + number_bytes * 4 * shape.hidden)
    inputs = 5 if number_bytes == 2 else 2
    return int(kept + 8 * shape.hidden + number_bytes * (inputs * shape.hidden + shape.inner))
