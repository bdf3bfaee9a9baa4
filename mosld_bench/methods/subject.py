"""What a method is tried on: a small model, a batch of two texts, and a few steps of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mosld_bench.errors import BenchError
from mosld_bench.methods import author
from mosld_bench.methods.base import Method
from mosld_bench.methods.count import base_size, empty_model
from mosld_bench.methods.live import attached_copy

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def small_llama() -> PreTrainedConfig:
    """Four layers, so that an allocation by quarters fits, and a v_proj that is not square."""
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=101, max_position_embeddings=64, bos_token_id=1, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip


#: How many steps a method is told that its training has: the first ones of these are made.
_STEPS = 1000


class Subject:
    """The method under test, with the small model that it is tried on and a batch of two texts."""

    #: The model after training, and what that changed of what trials share; set by the check of training.
    model: nn.Module
    changes: list[str]

    def __init__(
        self,
        method: Method,
        params: Mapping[str, Any],
        config: PreTrainedConfig,
        *,
        knob: str | None = None,
        fixed_size: bool = False,
    ) -> None:
        self.method, self.params, self.config = method, dict(params), config
        self.knob, self.fixed_size = knob, fixed_size
        torch.manual_seed(0)
        self.base = empty_model(config).float().requires_grad_(False).eval()
        self.ids = torch.randint(2, int(config.vocab_size), (2, 12))

    def attach(self, seed: int = 0) -> nn.Module:
        """A copy of the base model with the method on it, its own parameters drawn with ``seed``."""
        return attached_copy(self.method, self.base, self.params, seed=seed).model

    def logits(self, model: nn.Module) -> Tensor:
        """(texts, tokens, vocabulary), without dropout."""
        return self._forward(model.eval())

    def _forward(self, model: nn.Module) -> Tensor:
        """The logits of the texts' tokens; those of virtual tokens before them (prompt tuning) are left out."""
        output = model(input_ids=self.ids, attention_mask=torch.ones_like(self.ids))
        logits = getattr(output, "logits", None)
        if not isinstance(logits, Tensor):
            raise BenchError(
                f"the model that attach returns gives a {type(output).__name__} and no output with logits, as the "
                f"model that it was given does ({author.place(type(self.method), 'attach')})"
            )
        return logits[:, -self.ids.shape[1] :]

    def step(self, model: nn.Module) -> Tensor:
        """The loss of one training step, a scalar; leaves the gradients on the parameters."""
        model.train()
        self.method.before_step(model)
        logits = self._forward(model)
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), self.ids[:, 1:].flatten())
        extra = self.method.aux_loss(model)
        total: Tensor = loss if extra is None else loss + extra
        total.backward()  # type: ignore[no-untyped-call]
        return total.detach()

    def trained(self) -> nn.Module:
        """The model after a few steps at a high learning rate."""
        model = self.attach()
        self.train(model)
        return model

    def trained_in_bfloat16(self) -> Tensor:
        """The logits after a step of training on the base model in bfloat16."""
        base = self.base
        try:
            self.base = deepcopy(base).to(torch.bfloat16)
            model = self.attach()
            self.train(model, steps=1)
            return self.logits(model)
        finally:
            self.base = base

    def train(self, model: nn.Module, steps: int = 3) -> None:
        """Train ``model`` for a few steps. Raises BenchError for a loss or a parameter that is no finite number."""
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not named:
            return
        optimizer = torch.optim.AdamW(named.values(), lr=1e-2)
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            loss = self.step(model)
            if not loss.isfinite():
                raise BenchError(f"the loss of step {step} is {loss.item()}")
            lost = [name for name, p in named.items() if p.grad is not None and not p.grad.isfinite().all()]
            if lost:
                where = author.place(type(self.method), "attach")
                raise BenchError(f"the gradient of step {step} is no number at {lost[0]} ({where})")
            optimizer.step()
            self.method.after_step(model, step, _STEPS)


@contextmanager
def watched(model: nn.Module, cls: type) -> Iterator[None]:
    """Inside the block, the first module of ``model`` whose output holds a number that is none ends it.

    Raises BenchError with the module's name, and the file and line of the author of ``cls`` that is around it.
    """
    broken: list[str] = []
    names = {id(module): name for name, module in model.named_modules()}

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        if not broken and any(leaf.isnan().any() for leaf in tensors):
            broken.append(names[id(module)])
            raise _NotANumberError

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        yield
    except _NotANumberError:
        raise BenchError(f"NaN first comes out of {_told(model, broken[0], cls)}") from None
    finally:
        for hook in hooks:
            hook.remove()


class _NotANumberError(Exception):
    """The output of a module holds a NaN."""


def _told(model: nn.Module, name: str, cls: type) -> str:
    """The module of this name, or the nearest around it that is of a class of the author's, with its file and line."""
    parts = name.split(".")
    for depth in range(len(parts), 0, -1):
        around = ".".join(parts[:depth])
        kind = type(model.get_submodule(around))
        if author.is_foreign(kind) and kind.__module__.partition(".")[0] == cls.__module__.partition(".")[0]:
            return f"{around}, a {kind.__qualname__} ({author.place(kind, 'forward')})"
    return f"{name or 'the model'} ({author.place(cls, 'attach')})"


#: Models of more parameters than this are tried with fewer layers and a smaller vocabulary.
_LARGEST = 20_000_000


def shortened(config: PreTrainedConfig, layers: int = 4, vocabulary: int = 1000) -> PreTrainedConfig:
    """``config`` as it is tried: of a large model the first ``layers`` at their full width, with fewer tokens.

    A method sees the same names of modules and widths of layers.
    """
    if base_size(config) <= _LARGEST:
        return config
    short = deepcopy(config)
    text = short.get_text_config()
    before = text.num_hidden_layers
    text.num_hidden_layers = min(layers, before)
    for name, value in vars(text).items():
        if isinstance(value, list) and len(value) == before:  # what each layer is, such as `layer_types`
            setattr(text, name, value[: text.num_hidden_layers])
    text.vocab_size = min(vocabulary, text.vocab_size)
    text.pad_token_id = None
    return short
