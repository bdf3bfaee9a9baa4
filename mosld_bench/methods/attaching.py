"""Attaching a method: what its `attach` does wrong is said once, with the line of its author that it is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mosld_bench.errors import BenchError, MethodError
from mosld_bench.methods import author
from mosld_bench.methods.base import Method
from mosld_bench.methods.matching import refuse_endless

if TYPE_CHECKING:
    from torch import nn


def attach(method: Method, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
    """``model`` with ``method`` on it, as its `attach` returns it.

    Raises MethodError where that returns no module, or, for a method from outside, raises anything but a BenchError.
    On the meta device a RuntimeError is raised as it is: it may come of a value that is not there.
    """
    import torch
    from torch import nn

    cls = type(method)
    refuse_endless(model, params)
    try:
        attached: Any = method.attach(model, params)
    except (BenchError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        on_meta = any(parameter.is_meta for parameter in model.parameters())
        if not author.is_foreign(cls) or (on_meta and isinstance(error, RuntimeError)):
            raise
        raise _wrong(cls, f"raises {author.said(error, of=cls)}") from error
    if not isinstance(attached, nn.Module):
        returned = "returns nothing" if attached is None else f"returns a {type(attached).__name__}"
        where = author.place(cls, "attach")
        raise _wrong(cls, f"{returned}, and has to return the model: let it end with 'return model' ({where})")
    return attached


def _wrong(cls: type, finding: str) -> MethodError:
    return MethodError(f"attach of the method {author.named(cls)} {finding}.", f"it {finding}")
