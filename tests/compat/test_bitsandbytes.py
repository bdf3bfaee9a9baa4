"""What compat/bitsandbytes.py and the rounded layers assume of bitsandbytes, and what they come to."""

from __future__ import annotations

import importlib
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mosld_bench.compat.bitsandbytes import _without_the_hub, beside_weights, numbers_of, readings, rounded_layers
from mosld_bench.methods.live import copy_sharing_weights
from mosld_bench.methods.saved import own_state
from mosld_bench.methods.shared_state import SharedState, TorchSettings
from mosld_bench.spec.trial import Load
from tests.compat.assumption import assumed
from tests.support.models import build, config
from tests.support.rounded import LOADS, SHAPE, needs_bitsandbytes, read, rounded, unpacked

pytestmark = needs_bitsandbytes
IDS = torch.randint(3, SHAPE.vocab_size, (3, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=LOADS)
def load(request: pytest.FixtureRequest) -> Load:
    return request.param  # type: ignore[no-any-return]


def test_a_rounded_weight_is_packed_and_what_it_is_read_by_stands_beside_it(load: Load) -> None:
    model = rounded(load)
    layers = dict(rounded_layers(model))
    assert len(layers) == 7 * SHAPE.num_hidden_layers
    with assumed("bitsandbytes", "a weight's own parameter is packed, and its readings are in no parameter or buffer"):
        layer = layers["model.layers.0.mlp.down_proj"]
        assert layer.weight.numel() == 64 * 128 / (2 if load == "nf4" else 1)
        assert numbers_of(layer.weight) == 64 * 128
        assert (layer.in_features, layer.out_features) == (128, 64)
        seen = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        assert not {id(tensor) for tensor in readings(model).values()} & seen
    each = {"nf4": {"absmax", "code", "offset", "state2.absmax", "state2.code"}, "int8": {"SCB"}}[load]
    assert set(readings(model)) == {f"{name}.{part}" for name in layers for part in each}


def test_a_rounded_model_is_the_model_of_its_rounded_numbers(load: Load) -> None:
    """In its logits and in the gradient of what comes before all of its layers."""
    model, gradients = rounded(load), []
    for each in (model, unpacked(model)):
        before = each.get_input_embeddings()(IDS).detach().requires_grad_()
        logits = each(inputs_embeds=before).logits
        logits.square().mean().backward()
        gradients.append((logits.detach(), before.grad))
    for ours, wanted in zip(*gradients, strict=True):
        assert torch.allclose(ours, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scoring_and_training_change_nothing_of_a_base_model(load: Load, dtype: torch.dtype) -> None:
    """As its own layers do on some CPUs: the first score without gradients would pack a weight in another way."""
    base = rounded(load, dtype)
    shared = SharedState(base, TorchSettings())
    with torch.no_grad():
        first = base(IDS).logits
    before = base.get_input_embeddings()(IDS).detach().requires_grad_()
    base.train()(inputs_embeds=before).logits.sum().backward()
    assert before.grad is not None
    assert before.grad.abs().sum() > 0
    with torch.no_grad():
        assert torch.equal(base.eval()(IDS).logits, first)
    assert shared.changes() == []


def test_what_a_text_scores_does_not_depend_on_the_texts_beside_it(load: Load) -> None:
    """Not even beside one with a large number, by which bitsandbytes rounds inputs of eight bits in another way."""
    base = rounded(load)
    before = base.get_input_embeddings()(IDS)
    before[1:] *= 30
    with torch.no_grad():
        together, alone = base(inputs_embeds=before).logits[0], base(inputs_embeds=before[:1]).logits[0]
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_change_of_what_weights_are_read_by_is_a_change_of_the_base_model(load: Load) -> None:
    base = rounded(load)
    shared = SharedState(base, TorchSettings())
    name, reading = next((name, tensor) for name, tensor in readings(base).items() if tensor.numel() > 1)
    reading[0] += 1
    assert shared.changes() == [f"what rounded weights are read by, {name} of the shared base model"]


def test_copies_share_weights_and_readings_and_have_layers_of_their_own(load: Load) -> None:
    base = rounded(load)
    copied: Any = copy_sharing_weights(base)
    ours, theirs = dict(rounded_layers(base)), dict(rounded_layers(copied))
    for name, layer in ours.items():
        other = theirs[name]
        assert other is not layer
        assert other.weight is not layer.weight
        assert type(other.weight) is type(layer.weight)
        assert other.weight.data_ptr() == layer.weight.data_ptr()
        if load == "int8":
            assert other.state.CB.data_ptr() == layer.weight.data_ptr()
    shared = readings(base)
    assert {name: id(tensor) for name, tensor in readings(copied).items()} == {n: id(t) for n, t in shared.items()}
    copied.to("cpu")  # as a model is moved that was attached to
    assert torch.equal(copied(IDS).logits, base(IDS).logits)
    assert own_state(copied, base) == {}
    assert all(name.startswith(beside_weights(base)) or name in dict(base.named_parameters()) for name in
               base.state_dict())  # fmt: skip


def test_a_layer_with_a_bias_and_a_transposed_one(load: Load) -> None:
    """Of GPT-2."""
    shape = config("gpt2", layers=1, n_embd=64)
    ids = torch.randint(3, shape.vocab_size, (2, 9))
    base = rounded(load, shape=shape)
    with torch.no_grad():
        near, exact = base(ids).logits, build(shape)(ids).logits
    assert near.isfinite().all()
    assert (near - exact).abs().max() < (0.6 if load == "nf4" else 0.06) * exact.abs().max()
    weight = read(base.transformer.h[0].attn.c_attn)
    wanted = build(shape).transformer.h[0].attn.c_attn.weight.t()
    assert (weight - wanted).abs().max() < wanted.abs().max() / (5 if load == "nf4" else 100)


def test_deepcopy_alone_would_copy_weights_of_four_bits() -> None:
    with assumed("bitsandbytes", "Params4bit copies its memory on deepcopy, and shares it on copy"):
        weight = next(layer.weight for _, layer in rounded_layers(rounded("nf4")))
        assert deepcopy(weight).data_ptr() != weight.data_ptr()
        assert weight.__copy__().data_ptr() == weight.data_ptr()
        assert weight.__copy__().quant_state is weight.quant_state


def test_its_import_runs_nothing_of_the_hub_and_says_nothing(tmp_path: Path) -> None:
    """Whoever imports it: PEFT does. A package `kernels` that is there stays as it is for all others."""
    (tmp_path / "kernels.py").write_text("def get_kernel(*a, **k):\n    raise SystemExit('asked for a kernel')\n")
    code = "import mosld_bench, kernels, bitsandbytes, sys; assert sys.modules['kernels'] is kernels; print('fine')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "fine", "")
    with _without_the_hub(), pytest.raises(ImportError):
        importlib.import_module("kernels")
    assert "kernels" not in sys.modules


def test_an_own_parameter_of_a_rounded_layer_is_the_method_s(load: Load) -> None:
    base = rounded(load)
    copied: Any = copy_sharing_weights(base)
    copied.model.layers[0].mlp.up_proj.scale = nn.Parameter(torch.ones(2))
    assert list(own_state(copied, base)) == ["model.layers.0.mlp.up_proj.scale"]
