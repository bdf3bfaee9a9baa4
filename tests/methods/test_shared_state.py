"""That a base model is as it was is read off its values, to the last bit and place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mosld_bench.methods.live import copy_sharing_weights
from mosld_bench.methods.shared_state import SharedState, TorchSettings
from tests.support.models import build, config


def state(dtype: torch.dtype = torch.float32) -> tuple[Any, SharedState]:
    base = build(config(layers=1)).to(dtype)
    return base, SharedState(base, TorchSettings())


def test_a_model_that_nobody_touched_is_as_it_was() -> None:
    base, shared = state()
    assert shared.changes() == []
    base(input_ids=torch.tensor([[3, 4]]))
    assert shared.changes() == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_bit_of_one_weight_and_two_numbers_that_change_places_are_found(dtype: torch.dtype) -> None:
    base, shared = state(dtype)
    weight = base.model.layers[0].self_attn.v_proj.weight
    bits = weight.data.view(torch.uint8)
    for place in [(0, 0), (7, 13), (15, 31)]:
        bits[place] ^= 1
        assert shared.changes() == ["the weight model.layers.0.self_attn.v_proj.weight of the shared base model"]
        bits[place] ^= 1
        assert shared.changes() == []
    kept = weight.data.clone()
    for moved in (kept.flip(0), kept.flip(1), kept.roll(1, 0), kept.roll(1, 1), kept[:16, :16].T):
        weight.data[: len(moved), : moved.shape[1]] = moved
        assert len(shared.changes()) == 1
        weight.data.copy_(kept)
    assert shared.changes() == []


def test_a_checksum_takes_any_shape_and_dtype() -> None:
    from mosld_bench.methods.shared_state import _checksums

    torch.manual_seed(0)
    wide = torch.randn(3, 5000)
    tensors = [wide, wide.T, wide[:, 1:], torch.tensor(2.0), torch.zeros(0), torch.ones(3, dtype=torch.bool)]
    sums = _checksums(tensors)
    assert sums == _checksums([tensor.clone() for tensor in tensors])
    assert len(set(sums)) == len(sums)
    assert _checksums([]) == []


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        (lambda base: base.model.rotary_emb.inv_freq.mul_(2), "the buffer model.rotary_emb.inv_freq"),
        (lambda base: base.model.norm.train(), "the module model.norm"),
        (lambda base: base.lm_head.register_forward_hook(print), "the module lm_head"),
        (lambda base: base.lm_head.requires_grad_(True), "the weight lm_head.weight"),
        (lambda base: setattr(base.config, "use_cache", False), "the attribute config"),
        (lambda base: setattr(base.generation_config, "eos_token_id", 7), "the attribute generation_config"),
        (lambda base: setattr(base, "lm_head", torch.nn.Identity()), "the weight lm_head.weight"),
        (lambda base: setattr(base.lm_head, "forward", print), "the module lm_head"),
    ],
)
def test_what_else_a_model_is_made_of_is_compared_too(deed: Callable[[Any], object], said: str) -> None:
    base, shared = state()
    deed(base)
    assert f"{said} of the shared base model" in shared.changes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: torch.set_default_dtype(torch.bfloat16), "default dtype"),
        (lambda: torch.set_default_device("meta"), "default device"),
        (lambda: torch.use_deterministic_algorithms(True), "deterministic mode"),
        (lambda: torch.set_float32_matmul_precision("medium"), "precision of matrix products"),
        (lambda: torch.set_grad_enabled(False), "gradient mode"),
        (lambda: torch.set_num_threads(torch.get_num_threads() + 1), "number of threads"),
        (lambda: setattr(torch.backends.cudnn, "benchmark", True), "benchmark mode of cuDNN"),
        (lambda: torch.backends.cuda.enable_flash_sdp(False), "flash attention"),
    ],
)
def test_settings_that_move_numbers_are_found_and_set_back(change: Callable[[], object], said: str) -> None:
    settings = TorchSettings()
    change()
    try:
        (found,) = settings.changes()
    finally:
        settings.restore()
    assert found.startswith(f"torch's {said} (")
    assert settings.changes() == []


def test_a_copy_of_a_model_shares_its_weights_and_nothing_else() -> None:
    """Tied weights stay tied; buffers, configurations and modules are the copy's own."""
    for tied in (False, True):
        base: Any = build(config(layers=1, tie_word_embeddings=tied))
        copied: Any = copy_sharing_weights(base)
        assert {p.data_ptr() for p in copied.parameters()} == {p.data_ptr() for p in base.parameters()}
        assert not {id(m) for m in copied.modules()} & {id(m) for m in base.modules()}
        assert not {id(p) for p in copied.parameters()} & {id(p) for p in base.parameters()}
        assert not {b.data_ptr() for b in copied.buffers()} & {b.data_ptr() for b in base.buffers()}
        assert copied.config is not base.config
        assert copied.generation_config is not base.generation_config
        assert copied.model.layers[0].self_attn.config is copied.config
        assert (copied.lm_head.weight is copied.model.embed_tokens.weight) == tied
