"""The plug-in contract as a battery of checks: `mosld-bench methods check RECIPE` calls `check_method`.

What of the contract needs the code of a trial, how a model writes answers, is in `mosld_bench/trial/answer_check.py`.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mosld_bench.errors import BenchError
from mosld_bench.methods.base import Method
from mosld_bench.methods.count import count_trainable, empty_model
from mosld_bench.methods.live import attached_copy, copy_sharing_weights, own_if_written
from mosld_bench.methods.shared_state import SharedState, TorchSettings

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

    def __init__(self, method: Method, params: Mapping[str, Any], knob: str | None, config: PreTrainedConfig) -> None:
        self.method, self.params, self.knob, self.config = method, dict(params), knob, config
        torch.manual_seed(0)
        self.base = empty_model(config).requires_grad_(False).eval()
        self.ids = torch.randint(2, int(config.vocab_size), (2, 12))

    def attach(self, seed: int = 0) -> nn.Module:
        """A copy of the base model with the method on it, its own parameters drawn with ``seed``."""
        return attached_copy(self.method, self.base, self.params, seed=seed).model

    def logits(self, model: nn.Module) -> Tensor:
        """(texts, tokens, vocabulary), without dropout."""
        return self._forward(model.eval())

    def _forward(self, model: nn.Module) -> Tensor:
        """The logits of the texts' tokens; those of virtual tokens before them (prompt tuning) are left out."""
        logits: Tensor = model(input_ids=self.ids, attention_mask=torch.ones_like(self.ids)).logits
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

    def trained(self, steps: int = 3) -> nn.Module:
        """The model after a few steps at a high learning rate."""
        model = self.attach()
        parameters = list(_trainable(model).values())
        if not parameters:
            return model
        optimizer = torch.optim.AdamW(parameters, lr=1e-2)
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            self.step(model)
            optimizer.step()
            self.method.after_step(model, step, _STEPS)
        return model


def check_method(
    method: Method,
    params: Mapping[str, Any],
    *,
    knob: str | None = None,
    fixed_size: bool = False,
    config: PreTrainedConfig | None = None,
) -> list[str]:
    """Hold ``method`` at ``params`` to the contract on a small model (``config``, a four-layer Llama if not given).

    ``knob``: the recipe's, where it is not the method's; ``fixed_size``: whether no budget turns it. Returns one line a
    check. Raises BenchError with every check that does not hold, each with what was found.
    """
    subject = Subject(method, params, None if fixed_size else knob or method.knob_of(params), config or small_llama())
    lines, broken = [], []
    settings = TorchSettings()
    for claim, check in _CHECKS.items():
        try:
            detail = check(subject)
        except BenchError as error:
            broken.append(f"{claim}: {error}")
        except Exception as error:
            broken.append(f"{claim}: {type(error).__name__}: {error}")
        else:
            lines.append(f"holds: {claim}{f' ({detail})' if detail else ''}")
        settings.restore()  # that one of the checks says that they were changed is enough
    if broken:
        name = f"{type(method).__module__}:{type(method).__qualname__}"
        raise BenchError(f"The method {name} breaks {len(broken)} of the contract's checks:\n  " + "\n  ".join(broken))
    return lines


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _demand(holds: bool, finding: str) -> None:
    """Raise BenchError with what was found, unless it ``holds``."""
    if not holds:
        raise BenchError(finding)


def _starts_at_zero(subject: Subject) -> str | None:
    before, after = subject.logits(subject.base), subject.logits(subject.attach())
    _demand(after.shape == before.shape, f"logits became {tuple(after.shape)}, they were {tuple(before.shape)}")
    if not subject.method.starts_at_zero(subject.params):
        return "not asked: this kind starts at random"
    gap = (after - before).abs().max().item()
    _demand(gap < 1e-5, f"logits moved by up to {gap:g}")
    return None


def _trains_its_own(subject: Subject) -> str | None:
    shared = SharedState(subject.base, TorchSettings())
    model = subject.trained()
    subject.logits(model)
    changes = shared.changes()
    shared.restore()
    _demand(not changes, f"this changed, which all trials of a process share: {', '.join(changes)}")
    return f"{sum(p.numel() for p in _trainable(model).values()):,} trainable"


def _reaches_all(subject: Subject) -> str | None:
    model = subject.trained()
    if not _trainable(model):
        return "nothing to train"
    model.zero_grad()
    subject.step(model)
    without = [name for name, p in _trainable(model).items() if p.grad is None or not p.grad.abs().sum() > 0]
    _demand(not without, f"no gradient at {', '.join(without[:3])}{' and others' if len(without) > 3 else ''}")
    return None


def _counts_true(subject: Subject) -> str | None:
    built = sum(p.numel() for p in _trainable(subject.attach()).values())
    counted = count_trainable(subject.method, subject.config, subject.params)
    _demand(built == counted, f"{counted:,} on the meta device, {built:,} built")
    return f"{built:,}"


def _turns(subject: Subject) -> str | None:
    knob = subject.knob
    if knob is None:
        return "no knob: a fixed size"
    method, params = subject.method, subject.params
    value = {**method.defaults(params), **params}[knob]
    more = value + (method.sizing(params).unit if knob == method.knob_of(params) else 1)
    small = count_trainable(method, subject.config, params)
    large = count_trainable(method, subject.config, method.at(params, more, knob))
    _demand(large > small, f"{knob} {value} has {small:,} parameters, {knob} {more} has {large:,}")
    return knob


def _is_deterministic(subject: Subject) -> str | None:
    first, second = _trainable(subject.trained()), _trainable(subject.trained())
    apart = [name for name, p in first.items() if not torch.equal(p, second[name])]
    _demand(not apart, f"two runs with one seed differ at {', '.join(apart[:3])}")
    return None


def _comes_back(subject: Subject) -> str | None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from mosld_bench.compat.peft import save_model

    model = subject.trained()
    if not _trainable(model):
        return "nothing to save"
    expected = subject.logits(model)
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder))
        torch.manual_seed(1)  # whoever loads it draws from where he is
        if (Path(folder) / "adapter_config.json").is_file():
            with own_if_written(subject.base):
                loaded = PeftModel.from_pretrained(copy_sharing_weights(subject.base), folder)
        else:
            loaded = AutoModelForCausalLM.from_pretrained(folder)
        gap = (subject.logits(loaded) - expected).abs().max().item()
    _demand(gap < 1e-4, f"logits of the loaded model differ by up to {gap:g}")
    return None


def _pickles(subject: Subject) -> str | None:
    method_class = type(subject.method)
    _demand(pickle.loads(pickle.dumps(method_class)) is method_class, "another class came back")
    return None


#: What the contract claims -> the check of it, which returns a detail worth printing, if any, and raises if not so.
_CHECKS: dict[str, Callable[[Subject], str | None]] = {
    "the output after attach is the base model's": _starts_at_zero,
    "attaching and training leave what trials share as it was: the base model, torch's settings": _trains_its_own,
    "a gradient reaches every trainable parameter": _reaches_all,
    "the count on the meta device is the built model's": _counts_true,
    "turning the knob up makes the method larger": _turns,
    "the same seed gives the same model and the same training": _is_deterministic,
    "what was saved gives the same output when loaded on the base model": _comes_back,
    "the method's class pickles by name, so that workers can have it": _pickles,
}
