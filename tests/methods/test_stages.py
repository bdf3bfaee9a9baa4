"""Which layers lie on which device, and models of which none can be told; what they compute: `trial/test_stages.py`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mosld_bench.errors import ModelError
from mosld_bench.methods.stages import layers_of, layers_per_device, spread
from tests.support.models import build, config


def fullest(counts: list[int], rest: float) -> float:
    """In layers."""
    return max(rest + counts[0], *counts[1:])


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(2, 16), st.floats(0, 30))
def test_the_fullest_device_has_as_little_as_can_be(layers: int, devices: int, rest: float) -> None:
    counts = layers_per_device(layers, devices, rest)
    assert (len(counts), sum(counts)) == (devices, layers)
    assert min(counts) >= 0
    each = range(layers + 1)
    assert fullest(counts, rest) == min(max(rest + own, -((own - layers) // (devices - 1))) for own in each)


@pytest.mark.parametrize(
    ("layers", "devices", "rest", "counts"),
    [
        (32, 1, 2.0, [32]),
        (32, 2, 0.0, [16, 16]),
        (80, 2, 0.6, [40, 40]),  # LLaMA2-70B
        (80, 3, 0.6, [26, 27, 27]),
        (4, 2, 9.0, [0, 4]),  # the embeddings of a large vocabulary are more than all layers
        (2, 4, 0.5, [0, 1, 1, 0]),
    ],
)
def test_embeddings_and_head_count_on_the_first(layers: int, devices: int, rest: float, counts: list[int]) -> None:
    assert layers_per_device(layers, devices, rest) == counts


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "gpt2", "gpt_neo", "mamba"])
def test_layers_are_found_by_their_number(kind: str) -> None:
    layers = layers_of(build(config(kind)))
    assert len(layers) == (2 if kind == "gpt_neo" else 4)
    assert len({type(layer) for layer in layers}) == 1


def test_a_model_without_a_list_of_its_layers_is_refused() -> None:
    model = build(config())
    model.model.layers = nn.Sequential(*model.model.layers)
    with pytest.raises(ModelError, match="LlamaForCausalLM cannot lie on several GPUs"):
        spread(model, [torch.device("cpu"), torch.device("cpu")])


def test_on_one_device_there_is_nothing_to_hand_on() -> None:
    model = spread(build(config()), [torch.device("cpu")])
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
