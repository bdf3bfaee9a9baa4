"""The plug-in contract as a battery of checks: `mosld-bench methods check RECIPE` calls `check_method`."""

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
from mosld_bench.methods.live import attached_copy, copy_sharing_weights

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def _small_llama() -> PreTrainedConfig:
    """Four layers, so that an allocation by quarters fits, and a v_proj that is not square."""
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=101, max_position_embeddings=64, bos_token_id=1, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip


class _Bench:
    """A base model, a batch, and the method under test."""

    def __init__(self, method: Method, params: Mapping[str, Any], config: PreTrainedConfig) -> None:
        from mosld_bench.methods.fit import empty_model

        self.method, self.params, self.config = method, dict(params), config
        torch.manual_seed(0)
        self.base = empty_model(config).requires_grad_(False).eval()
        self.ids = torch.randint(2, int(config.vocab_size), (2, 12))

    def attach(self, seed: int = 0) -> nn.Module:
        return attached_copy(self.method, self.base, self.params, seed=seed).model

    def logits(self, model: nn.Module) -> Tensor:
        return model.eval()(input_ids=self.ids, attention_mask=torch.ones_like(self.ids)).logits  # type: ignore[no-any-return]

    def step(self, model: nn.Module) -> Tensor:
        """One training step's loss and gradients."""
        model.train()
        self.method.before_step(model)
        logits = model(input_ids=self.ids, attention_mask=torch.ones_like(self.ids)).logits
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), self.ids[:, 1:].flatten())
        extra = self.method.aux_loss(model)
        total: Tensor = loss if extra is None else loss + extra
        total.backward()  # type: ignore[no-untyped-call]
        return total.detach()

    def trained(self, steps: int = 3) -> nn.Module:
        model = self.attach()
        own = list(_trainable(model).values())
        if not own:
            return model
        optimizer = torch.optim.AdamW(own, lr=1e-2)
        for _ in range(steps):
            optimizer.zero_grad()
            self.step(model)
            optimizer.step()
        return model


def check_method(
    method: Method, params: Mapping[str, Any], knob: str | None = None, config: PreTrainedConfig | None = None
) -> list[str]:
    """Hold ``method`` at ``params`` to the contract on a small model (``config``, a four-layer Llama if not given).

    Returns one line a check. Raises BenchError with every check that does not hold, each with what was found.
    """
    bench = _Bench(method, params, config or _small_llama())
    lines, broken = [], []
    for check in (_starts_at_zero, _trains_its_own, _reaches_all, _counts_true, _turns, _is_deterministic, _comes_back,
                  _pickles):  # fmt: skip
        what = (check.__doc__ or "").split("\n")[0].rstrip(".")
        try:
            found = _call(check, bench, knob)
        except BenchError as error:
            broken.append(f"{what}: {error}")
        except Exception as error:
            broken.append(f"{what}: {type(error).__name__}: {error}")
        else:
            lines.append(f"holds: {what}{f' ({found})' if found else ''}")
    if broken:
        name = f"{type(method).__module__}:{type(method).__qualname__}"
        raise BenchError(f"The method {name} breaks {len(broken)} of the contract's checks:\n  " + "\n  ".join(broken))
    return lines


def _call(check: Callable[..., str | None], bench: _Bench, knob: str | None) -> str | None:
    return check(bench, knob) if check is _turns else check(bench)


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _demand(holds: bool, found: str) -> None:
    if not holds:
        raise BenchError(found)


def _starts_at_zero(bench: _Bench) -> str | None:
    """the output after attach is the base model's"""
    before, after = bench.logits(bench.base), bench.logits(bench.attach())
    _demand(after.shape == before.shape, f"logits became {tuple(after.shape)}, they were {tuple(before.shape)}")
    if not bench.method.starts_at_zero(bench.params):
        return "not asked: this kind starts at random"
    gap = (after - before).abs().max().item()
    _demand(gap < 1e-5, f"logits moved by up to {gap:g}")
    return None


def _trains_its_own(bench: _Bench) -> str | None:
    """training changes the method's parameters and nothing of the base model"""
    pristine = {name: p.detach().clone() for name, p in bench.base.named_parameters()}
    model = bench.trained()
    frozen = [name for name, p in bench.base.named_parameters() if not torch.equal(p, pristine[name])]
    _demand(not frozen, f"these weights of the shared base model changed: {', '.join(frozen[:3])}")
    return f"{sum(p.numel() for p in _trainable(model).values()):,} trainable"


def _reaches_all(bench: _Bench) -> str | None:
    """a gradient reaches every trainable parameter"""
    model = bench.trained()
    if not _trainable(model):
        return "nothing to train"
    model.zero_grad()
    bench.step(model)
    without = [name for name, p in _trainable(model).items() if p.grad is None or not p.grad.abs().sum() > 0]
    _demand(not without, f"no gradient at {', '.join(without[:3])}{' and others' if len(without) > 3 else ''}")
    return None


def _counts_true(bench: _Bench) -> str | None:
    """the count on the meta device is the built model's"""
    from mosld_bench.methods.fit import count_trainable

    built = sum(p.numel() for p in _trainable(bench.attach()).values())
    counted = count_trainable(bench.method, bench.config, bench.params)
    _demand(built == counted, f"{counted:,} on the meta device, {built:,} built")
    return f"{built:,}"


def _turns(bench: _Bench, knob: str | None) -> str | None:
    """turning the knob up makes the method larger"""
    from mosld_bench.methods.fit import count_trainable

    knob = knob or bench.method.knob_of(bench.params)
    if knob is None:
        return "no knob: a fixed size"
    value = bench.params[knob]
    small = count_trainable(bench.method, bench.config, bench.params)
    large = count_trainable(bench.method, bench.config, {**bench.params, knob: value + 1})
    _demand(large > small, f"{knob} {value} has {small:,} parameters, {knob} {value + 1} has {large:,}")
    return knob


def _is_deterministic(bench: _Bench) -> str | None:
    """the same seed gives the same model and the same training"""
    one, other = bench.trained(), bench.trained()
    apart = [name for name, p in _trainable(one).items() if not torch.equal(p, _trainable(other)[name])]
    _demand(not apart, f"two runs with one seed differ at {', '.join(apart[:3])}")
    return None


def _comes_back(bench: _Bench) -> str | None:
    """what save_pretrained wrote gives the same output when loaded"""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = bench.trained()
    if not _trainable(model):
        return "nothing to save"
    expected = bench.logits(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # type: ignore[operator]
        if (Path(folder) / "adapter_config.json").is_file():
            loaded = PeftModel.from_pretrained(copy_sharing_weights(bench.base), folder)
        else:
            loaded = AutoModelForCausalLM.from_pretrained(folder)
        gap = (bench.logits(loaded) - expected).abs().max().item()
    _demand(gap < 1e-4, f"logits of the loaded model differ by up to {gap:g}")
    return None


def _pickles(bench: _Bench) -> str | None:
    """the method's class pickles by name, so that workers can have it"""
    _demand(pickle.loads(pickle.dumps(type(bench.method))) is type(bench.method), "another class came back")
    return None
