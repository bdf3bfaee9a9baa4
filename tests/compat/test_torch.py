"""What compat/torch.py assumes of torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as modules

from mosld_bench.compat.torch import (
    AcrossDevices,
    Float32Products,
    before_writes,
    bfloat16_products,
    drop_hooks_of_all,
    has_bfloat16,
    hooks,
    hooks_of_all,
    memory,
)
from tests.compat.assumption import assumed
from tests.support.devices import several_devices

#: Ways to write into a tensor.
WRITES: dict[str, Callable[[Tensor], object]] = {
    "in place": lambda tensor: tensor.add_(1),
    "through .data": lambda tensor: tensor.data.sub_(1),
    "an operator": lambda tensor: tensor.data.__isub__(1),
    "a view": lambda tensor: tensor[1:, 2].zero_(),
    "an index": lambda tensor: tensor.__setitem__((0, 0), 5.0),
    "indices": lambda tensor: tensor.index_copy_(0, torch.tensor([1]), torch.ones(1, 4)),
    "out": lambda tensor: torch.mul(tensor, 2, out=tensor),
    "many at once": lambda tensor: torch._foreach_add_([tensor], 1.0),
    "a copy": lambda tensor: tensor.copy_(torch.ones(4, 4)),
    "an initial value": lambda tensor: nn.init.normal_(tensor),
}

#: What reads, or puts other memory in the place of this.
READS: dict[str, Callable[[Tensor], object]] = {
    "a product": lambda tensor: tensor @ tensor,
    "a conversion": lambda tensor: tensor.to(torch.float32).to(torch.bfloat16),
    "a decomposition": lambda tensor: torch.linalg.qr(tensor.data),
    "other memory": lambda tensor: setattr(tensor, "data", torch.zeros(4, 4)),
    "a copy": lambda tensor: tensor.clone().zero_(),
}


@pytest.mark.parametrize("way", WRITES)
def test_a_write_is_seen_before_it_happens(way: str) -> None:
    with assumed("torch", f"a write ({way}) is an operation whose schema says that it writes"):
        tensor = nn.Parameter(torch.eye(4), requires_grad=False)
        found: list[tuple[int, bool]] = []
        with before_writes([memory(tensor)], lambda at: found.append((at, torch.equal(tensor, torch.eye(4))))):
            WRITES[way](tensor)
        assert (memory(tensor), True) in found
        assert not torch.equal(tensor, torch.eye(4))


@pytest.mark.parametrize("way", READS)
def test_what_does_not_write_is_not_taken_for_a_write(way: str) -> None:
    with assumed("torch", f"{way} is no operation that writes"):
        tensor = nn.Parameter(torch.eye(4), requires_grad=False)
        found: list[int] = []
        with before_writes([memory(tensor)], found.append):
            READS[way](tensor)
        assert found == []


def test_views_are_in_the_memory_of_what_they_look_at() -> None:
    with assumed("torch", "a view has its tensor's untyped_storage, and a sparse tensor none"):
        tensor = torch.eye(4)
        assert memory(tensor[1:, 2:]) == memory(tensor.T) == memory(tensor.detach()) == memory(tensor)
        assert memory(tensor.clone()) != memory(tensor)
        assert memory(tensor.to_sparse()) == 0


def test_hooks_of_one_module_and_of_all() -> None:
    with assumed("torch", "hooks are the values of dictionaries by the names that compat/torch.py has"):
        layer, kept = nn.Linear(1, 1), hooks_of_all()
        assert hooks(layer) == []
        for count, register in enumerate(
            (layer.register_forward_hook, layer.register_forward_pre_hook, layer.register_full_backward_hook,
             layer.register_full_backward_pre_hook), 1,
        ):  # fmt: skip
            register(lambda *arguments: None)  # type: ignore[operator]
            assert len(hooks(layer)) == count
        for count, register_for_all in enumerate(
            (modules.register_module_forward_hook, modules.register_module_forward_pre_hook,
             modules.register_module_full_backward_hook, modules.register_module_full_backward_pre_hook), 1,
        ):  # fmt: skip
            register_for_all(lambda *arguments: None)  # type: ignore[operator]
            assert len(hooks_of_all()) == len(kept) + count
        drop_hooks_of_all(but=kept)
        assert hooks_of_all() == kept
        nn.Linear(1, 1)(torch.ones(1))


def test_what_a_library_joins_across_devices_is_on_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with several_devices(monkeypatch):
        parts = [torch.full((1,), float(place), device=f"cpu:{place}") for place in range(3)]
        for join in (torch.cat, torch.stack):
            with pytest.raises(RuntimeError, match="same device"):
                join(parts)
            with AcrossDevices():
                joined = join(parts)
            assert str(joined.device) == "cpu:0"
            assert joined.flatten().tolist() == [0, 1, 2]


def _matrices(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Leaves in bfloat16 of these shapes; a negative last size stands for one that lies in memory by columns."""
    torch.manual_seed(0)
    leaves = []
    for shape in shapes:
        *outer, columns = shape
        drawn = torch.randn(*outer, abs(columns)).to(torch.bfloat16)
        leaves.append((drawn.mT.contiguous().mT if columns < 0 else drawn).requires_grad_())
    return leaves


#: Ways to multiply matrices, and the shapes of what is multiplied.
PRODUCTS: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "rows by rows": (torch.matmul, ((40, 24), (24, 32))),
    "rows by columns": (torch.matmul, ((40, 24), (24, -32))),
    "few rows": (torch.matmul, ((2, 24), (24, 32))),
    "few rows by columns": (torch.matmul, ((2, 24), (24, -32))),
    "a batch": (torch.matmul, ((3, 40, 24), (3, 24, 32))),
    "a layer": (F.linear, ((2, 20, 24), (32, 24))),
    "a layer with a bias": (F.linear, ((2, 20, 24), (32, 24), (32,))),
    "a sum": (partial(torch.baddbmm, beta=0.5, alpha=2.0), ((3, 40, 32), (3, 40, 24), (3, 24, 32))),
    "einsum": (partial(torch.einsum, "btd,ekd->btek"), ((2, 20, 24), (4, 8, 24))),
    "attention": (F.scaled_dot_product_attention, ((1, 2, 20, 16),) * 3),
}


@pytest.mark.parametrize("way", PRODUCTS)
def test_products_of_bfloat16_in_float32_are_the_exact_ones_rounded(way: str) -> None:
    multiply, shapes = PRODUCTS[way]
    factors = _matrices(*shapes)
    exact = [factor.detach().double().requires_grad_() for factor in factors]
    expected = multiply(*exact)
    weights = torch.randn(expected.shape).to(torch.bfloat16)
    (expected * weights.double()).sum().backward()  # type: ignore[no-untyped-call]
    with Float32Products():  # type: ignore[no-untyped-call]
        product = multiply(*factors)
        (product * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert product.dtype == torch.bfloat16
    inner = way == "attention"  # whose sums are of what was rounded before
    _assert_rounded(product, expected, inner)
    for factor, leaf in zip(factors, exact, strict=True):
        assert factor.grad is not None
        assert leaf.grad is not None
        assert factor.grad.dtype == torch.bfloat16
        _assert_rounded(factor.grad, leaf.grad, inner)


def _assert_rounded(values: Tensor, exact: Tensor, inner: bool) -> None:
    """Off by half a unit of bfloat16's last place; where an ``inner`` result was rounded as well, by some of them."""
    unit = 2.0**-8
    largest = exact.abs().max().item()
    torch.testing.assert_close(
        values.double(), exact, rtol=4 * unit if inner else 1.01 * unit, atol=unit * largest if inner else 1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_products_of_other_numbers_stay_as_they_are(dtype: torch.dtype) -> None:
    x, w = (torch.randn(40, 40).mul(100).to(dtype) for _ in range(2))
    with Float32Products():  # type: ignore[no-untyped-call]
        product = x @ w
    assert product.dtype == dtype
    assert torch.equal(product, x @ w)


def test_products_are_taken_in_float32_where_a_processor_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, dtype, device, wanted in (
        (False, "bfloat16", "cpu", True),
        (False, torch.bfloat16, "cpu", True),
        (False, "float32", "cpu", False),
        (False, "bfloat16", "cuda", False),
        (True, "bfloat16", "cpu", False),
    ):
        monkeypatch.setattr("mosld_bench.compat.torch.has_bfloat16", lambda there=there: there)
        assert isinstance(bfloat16_products(dtype, device), Float32Products) is wanted


def test_torch_says_whether_a_processor_has_bfloat16() -> None:
    with assumed("torch", "torch.ops.mkldnn._is_mkldnn_bf16_supported says whether oneDNN has products for it"):
        assert callable(torch.ops.mkldnn._is_mkldnn_bf16_supported)
    assert has_bfloat16() is torch.ops.mkldnn._is_mkldnn_bf16_supported()
