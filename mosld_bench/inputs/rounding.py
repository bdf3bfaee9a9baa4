"""Base models whose weights are rounded to few bits as they are loaded (`ModelSpec.load`), by bitsandbytes."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from mosld_bench.compat.requirements import tested_with
from mosld_bench.errors import ModelError
from mosld_bench.spec.trial import ROUNDED_BY, Load, ModelSpec

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

#: The extra of this package that brings what does it.
_EXTRA = "quantised"


def refuse_rounded_twice(spec: ModelSpec, config: PreTrainedConfig) -> None:
    """Raise ModelError where ``spec`` asks for rounding of a model, of ``config``, that is rounded already."""
    if spec.load is not None and getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"model.load: {spec.load} rounds the weights of a model, but those of {spec.name!r} are rounded already, "
            f"as its configuration says (quantization_config). Name the model that it was made of, or leave model.load "
            f"out."
        )


def check_can_round(spec: ModelSpec) -> None:
    """Raise ModelError where ``spec`` asks for rounded weights, and what rounds is not here, or too old or new."""
    if spec.load is None:
        return
    wish = f"model.load: {spec.load} rounds the weights of {spec.name!r} by {ROUNDED_BY}"
    advice = f"Install it: pip install 'mosld-bench[{_EXTRA}]'; or leave model.load out."
    try:
        here = version(ROUNDED_BY)
    except PackageNotFoundError:
        raise ModelError(f"{wish}, which is not installed. {advice}") from None
    wanted = tested_with(ROUNDED_BY)
    if wanted is not None and not wanted.contains(here, prereleases=True):
        raise ModelError(f"{wish}{wanted}, and {here} is installed. {advice}")


def options_of(load: Load, dtype: torch.dtype, device: torch.device | str) -> dict[str, Any]:
    """What transformers' ``from_pretrained`` takes for ``load`` of a model that computes in ``dtype``.

    nf4 as QLoRA has it (arXiv 2305.14314): normal floats in blocks of 64, whose largest numbers are rounded to eight
    bits in blocks of 256.
    """
    import torch
    from transformers import BitsAndBytesConfig

    if load == "nf4":
        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    else:
        settings = BitsAndBytesConfig(load_in_8bit=True)
    return {"quantization_config": settings, "device_map": {"": torch.device(device)}}
