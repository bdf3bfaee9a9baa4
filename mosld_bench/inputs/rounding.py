"""Base models whose weights are rounded to few bits as they are loaded (`ModelSpec.load`), by bitsandbytes."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any

from mosld_bench.errors import ModelError
from mosld_bench.spec.trial import Load, ModelSpec

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

#: The distribution that does it, and the extra of this package that brings it.
LIBRARY, EXTRA = "bitsandbytes", "quantised"


def check_can_round(spec: ModelSpec, config: PreTrainedConfig | None = None) -> None:
    """Raise ModelError where ``spec`` asks for rounded weights, and there is no library for it, or one too old or new.

    With its ``config``, also where the weights of the model were rounded by somebody before.
    """
    if spec.load is None:
        return
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"model.load: {spec.load} rounds the weights of a model, but those of {spec.name!r} are rounded already, as "
            f"its configuration says (quantization_config). Name the model that it was made of, or leave model.load out."
        )
    from packaging.requirements import Requirement

    advice = f"Install it: pip install 'mosld-bench[{EXTRA}]'; or leave model.load out."
    try:
        here = version(LIBRARY)
    except PackageNotFoundError:
        raise ModelError(
            f"model.load: {spec.load} rounds the weights of {spec.name!r} by {LIBRARY}, which is not installed. {advice}"
        ) from None
    try:
        wanted = next(r for line in requires("mosld-bench") or () if (r := Requirement(line)).name == LIBRARY)
    except (PackageNotFoundError, StopIteration):  # run from a folder, without an installation
        return
    if not wanted.specifier.contains(here, prereleases=True):
        raise ModelError(
            f"model.load: {spec.load} rounds the weights of {spec.name!r} by {LIBRARY} {wanted.specifier}, and {here} "
            f"is installed. {advice}"
        )


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
