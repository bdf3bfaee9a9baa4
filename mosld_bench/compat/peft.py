"""What is used of PEFT beyond its documentation: how tuners of other packages become known to it, and their hooks.

PEFT is imported inside the functions. `import mosld_bench` loads this module, and importing PEFT loads our tuners,
which need what stands here.
"""

from __future__ import annotations

import copy
import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mosld_bench.compat.importing import around_import
from mosld_bench.errors import BenchError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

#: The files of an adapter, as PEFT calls them.
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_TUNERS = ("mosld_bench.tuners.mixture", "mosld_bench.tuners.mixlora")
#: What PEFT puts before the base model's names of modules and parameters.
_WRAPPED = "base_model.model."
#: The attribute of a model under which :func:`remember_start` keeps what its adapter started from.
_START = "_mosld_bench_start"

Value = TypeVar("Value")


def register_with_peft() -> None:
    """Make PEFT know our tuners: now if it is imported already, else as soon as it is.

    After `import mosld_bench`, PEFT loads adapters of ours as it does its own (``PeftModel.from_pretrained``).
    """
    around_import("peft", _then_our_tuners)
    if "peft" in sys.modules:
        _import_tuners()


@contextmanager
def _then_our_tuners() -> Iterator[None]:
    yield
    _import_tuners()


def _import_tuners() -> None:
    for name in _TUNERS:
        importlib.import_module(name)


def register_tuner(name: str, config_class: Any, model_class: Any) -> None:
    """Make PEFT know a tuner, as ``peft_type`` in capitals. To be called once, by the tuner's package."""
    from aenum import extend_enum
    from peft.utils import register_peft_method
    from peft.utils.peft_types import PeftType

    # PEFT refuses names that its enum lacks, so the name comes first.
    if name.upper() not in PeftType.__members__:
        extend_enum(PeftType, name.upper(), name.upper())
    register_peft_method(name=name, config_cls=config_class, model_cls=model_class, prefix=model_class.prefix)


def config_classes() -> dict[str, type]:
    """PEFT type, such as ``LORA`` -> its configuration class; of all methods that PEFT knows, ours among them."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return {str(getattr(peft_type, "value", peft_type)): cls for peft_type, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def classes_of(peft_type: str) -> tuple[type, ...]:
    """The classes of the configuration and of the model of a PEFT type such as ``LORA``; those that there are."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    tuners = {str(getattr(known, "value", known)): cls for known, cls in PEFT_TYPE_TO_TUNER_MAPPING.items()}
    return tuple(classes[peft_type] for classes in (config_classes(), tuners) if peft_type in classes)


def default_target_modules() -> dict[str, list[str]]:
    """Model type, such as ``llama`` -> the modules that PEFT gives LoRA where a configuration names none."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    return TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING  # type: ignore[no-any-return]


def of_module(patterns: Mapping[str, Value], module: str, default: Value) -> Value:
    """What ``patterns``, a ``rank_pattern`` or ``alpha_pattern``, say for ``module``, else ``default``.

    A pattern is a regular expression for the end of a module's name, from a dot on; the first that matches counts.
    """
    from peft.utils.other import get_pattern_key

    return patterns.get(get_pattern_key(patterns, module), default)


def pattern_of(patterns: Iterable[str], module: str, *, inside: bool = False) -> str | None:
    """The first of ``patterns`` that matches ``module``, and so decides for it; None where none does.

    ``inside``: as FourierFT and C3A have it, where something and a dot must stand before what a pattern matches.
    """
    from peft.utils.other import get_pattern_key

    patterns = list(patterns)
    if inside:
        return next((key for key in patterns if re.match(rf".*\.{key}$", module)), None)
    key = get_pattern_key(patterns, module)
    return key if key in patterns else None


def adapted_modules(model: nn.Module) -> list[str]:
    """The base model's names of the modules in ``model`` that have an adapter, in their order."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [base_name(name) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]


def saved_modules(model: nn.Module) -> list[str]:
    """The base model's names of the modules in ``model`` that train as a whole (``modules_to_save``)."""
    from peft.utils.other import ModulesToSaveWrapper

    return [base_name(name) for name, module in model.named_modules() if isinstance(module, ModulesToSaveWrapper)]


def replace_module(tuner: Any, *, parent: nn.Module, name: str, adapted: nn.Module, original: nn.Module) -> None:
    """Put ``adapted`` where ``parent`` has ``original`` under ``name``, on its device. ``tuner``: a ``BaseTuner``."""
    tuner._replace_module(parent, name, adapted, original)


@contextmanager
def frozen_stays_frozen() -> Iterator[None]:
    """Inside the block, what takes a frozen parameter's place in a dictionary of parameters is frozen as well.

    PEFT puts adapters anew in these when it takes them to the dtype of a base of 16 bits and to float32, which lets all
    of them train: AdaLoRA's numbers of ranks, for one.
    """
    from torch import Tensor, nn

    put = nn.ParameterDict.__setitem__

    def put_as_it_was(self: nn.ParameterDict, key: str, value: Any) -> None:
        before = self.get(key)
        put(self, key, value)
        is_made = isinstance(value, Tensor) and not isinstance(value, nn.Parameter)
        if is_made and isinstance(before, nn.Parameter) and not before.requires_grad:
            self[key].requires_grad_(False)

    nn.ParameterDict.__setitem__ = put_as_it_was  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.ParameterDict.__setitem__ = put  # type: ignore[method-assign]


def is_excluded(target: Any) -> bool:
    """Whether the answer of ``_check_target_module_exists`` says that the module is under ``exclude_modules``.

    The answer is true or a match for a target. It is false or None for no target, and for one that is excluded a third
    falsy thing.
    """
    return not target and target is not False and target is not None


def to_base_device(layer: Any, adapter: str, device: torch.device) -> None:
    """Move the parameters of ``adapter`` in ``layer``, a ``BaseTunerLayer``, to ``device`` and the base's dtype."""
    layer._move_adapter_to_device_of_base_layer(adapter, device)


def cast_input(layer: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` in ``dtype``, unless the user switched that off for ``layer`` (``disable_input_dtype_casting``)."""
    return layer._cast_input_dtype(x, dtype)  # type: ignore[no-any-return]


def base_name(name: str) -> str:
    """A module's or parameter's name in the base model, from its ``name`` in the model with an adapter."""
    return name.removeprefix(_WRAPPED)


def layer_of_weight(parameter: str) -> str | None:
    """The base model's name of the layer whose own weight the parameter of this name is; None for any other parameter.

    Also of a copy that trains in its place (``modules_to_save``), and of one with an adapter beside it.
    """
    layer, _, last = base_name(parameter).rpartition(".")
    return re.sub(r"\.(modules_to_save\.[^.]+|base_layer)$", "", layer) if last == "weight" else None


def is_plain_lora(module: nn.Module) -> bool:
    """Whether ``module`` is a linear layer with ``lora_B lora_A x`` added, and no variant of LoRA such as DoRA."""
    from peft.tuners.lora import Linear

    return type(module) is Linear and not module.lora_variant


def prompt_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that make ``model``'s virtual tokens (prefix-tuning, prompt-tuning); none without such."""
    return [parameter for name, parameter in model.named_parameters() if name.startswith("prompt_encoder.")]


def learned_prompt(model: Any) -> Any:
    """What ``model`` puts before every text, for one text; None where it is no ``PeftModel`` with virtual tokens.

    A cache of keys and values (prefix-tuning), or embeddings (1, virtual tokens, hidden) (prompt-tuning, P-tuning).
    """
    config = getattr(model, "active_peft_config", None)
    return model.get_prompt(1) if config is not None and config.is_prompt_learning else None


def allocate(model: Any, step: int, steps: int) -> None:
    """Have a tuner do what PEFT wants done after optimiser step ``step`` (from 1) of ``steps``, gradients still there.

    AdaLoRA takes rank from some modules and leaves it to others; so does AdaMSS under ``use_asa``. Nothing for others.
    Raises BenchError where their schedule does not end within ``steps``.
    """
    tuner: Any = getattr(model, "base_model", None)
    if not hasattr(tuner, "update_and_allocate"):
        return
    from mosld_bench.compat.torch import AcrossDevices

    config = model.active_peft_config
    if hasattr(tuner, "rankallocator"):
        tuner.rankallocator.set_total_step(steps)
        if max(config.tinit, 1) + config.tfinal >= steps:
            raise BenchError(
                f"AdaLoRA takes rank away between the steps tinit and total - tfinal, but tinit is {config.tinit}, "
                f"tfinal {config.tfinal}, and the trial has {steps} steps. Lower them in the recipe's params, or "
                f"train longer."
            )
        if config.target_r >= config.init_r:
            raise BenchError(
                f"AdaLoRA goes from init_r down to target_r, but init_r is {config.init_r} and target_r "
                f"{config.target_r}. Raise init_r in the recipe's params, or lower target_r."
            )
    elif getattr(config, "use_asa", False) and config.final_warmup > steps:
        raise BenchError(
            f"AdaMSS reaches its asa_target_subspaces at step final_warmup, which is {config.final_warmup}, but the "
            f"trial has {steps} steps. Lower final_warmup in the recipe's params, or train longer."
        )
    with AcrossDevices():  # the ranks of all layers are compared
        tuner.update_and_allocate(step)


#: What AdaLoRA's allocator has found of every weight: its importance, and the running means of that and its spread.
_FOUND = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def allocation_state(model: Any) -> dict[str, Tensor] | None:
    """What a tuner has found so far that `allocate` goes by, by name; empty of one that takes no rank away.

    None of AdaMSS under ``use_asa``, which keeps it in many places.
    """
    import torch

    tuner: Any = getattr(model, "base_model", None)
    if not hasattr(tuner, "rankallocator"):
        return None if getattr(getattr(model, "active_peft_config", None), "use_asa", False) else {}
    allocator, pattern = tuner.rankallocator, model.active_peft_config.rank_pattern or {}
    found = {f"{kind}/{name}": value for kind in _FOUND for name, value in getattr(allocator, kind).items()}
    return found | {f"rank_pattern/{name}": torch.tensor(kept) for name, kept in pattern.items()}


def restore_allocation(model: Any, state: Mapping[str, Tensor]) -> None:
    """Set what `allocation_state` gave of the same tuner on the same model."""
    if not state:
        return
    entries = [(*name.partition("/")[::2], value) for name, value in state.items()]
    places = dict(model.base_model.model.named_parameters())
    for kind in _FOUND:
        found = {name: value.to(places[name].device) for of, name, value in entries if of == kind}
        setattr(model.base_model.rankallocator, kind, found)
    pattern = {name: value.tolist() for of, name, value in entries if of == "rank_pattern"}
    if pattern:
        model.active_peft_config.rank_pattern = pattern


def before_allocation(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of AdaLoRA's configuration with a ``total_step`` that PEFT takes, until :func:`allocate` knows it."""
    return {**options, "total_step": int(options.get("tinit") or 0) + int(options.get("tfinal") or 0) + 1}


def orthogonality(model: Any) -> Tensor | None:
    """AdaLoRA's own loss: how far its factors are from orthogonal; None of another method.

    PEFT adds it to the loss that a model computes from labels, which is not the one that is trained on here.
    """
    import torch

    tuner: Any = getattr(model, "base_model", None)
    if not hasattr(tuner, "rankallocator"):
        return None
    gaps: list[Tensor] = []
    for name, factor in tuner.model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            product = factor @ factor.T if "lora_A" in name else factor.T @ factor
            gap = torch.linalg.matrix_norm(product - torch.eye(len(product), device=product.device))
            gaps.append(gap.to(gaps[0].device) if gaps else gap)  # layers may lie on several devices
    loss: Tensor = model.active_peft_config.orth_reg_weight * torch.stack(gaps).mean()
    return loss


def remember_start(model: Any) -> None:
    """Keep what the adapter of ``model`` starts from, where whoever loads it would draw another start.

    PiSSA's fast SVD (``pissa_niter_4``) is random, and it is the base weights that it is taken out of. To be called
    right after the adapter was attached; `save_model` needs it.
    """
    config = getattr(model, "active_peft_config", None)
    if str(getattr(config, "init_lora_weights", "")).startswith("pissa_niter_"):
        from peft import get_peft_model_state_dict

        start = {name: value.clone() for name, value in get_peft_model_state_dict(model).items() if _is_factor(name)}
        setattr(model, _START, start)


def save_model(model: Any, folder: Path) -> None:
    """Write into ``folder`` what ``PeftModel.from_pretrained`` makes ``model`` of again, on the untouched base model.

    ``save_pretrained``, except for an adapter that :func:`remember_start` has the start of: since W - B0 A0 + B A is
    W + [B, -B0] [A; A0], that is written as a LoRA of twice the rank, which needs no start.
    """
    start = getattr(model, _START, None)
    if start is None:
        model.save_pretrained(str(folder))
        return
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(model)
    for name, first in start.items():
        rank, sign = (0, 1) if ".lora_A." in name else (1, -1)
        state[name] = torch.cat([state[name], sign * first.to(state[name])], dim=rank)
    config = copy.deepcopy(model.active_peft_config)
    wider = 2**0.5 if config.use_rslora else 2  # the scale stays: alpha / r, or alpha / sqrt(r)
    config.init_lora_weights, config.inference_mode = True, True
    config.r, config.rank_pattern = 2 * config.r, {key: 2 * r for key, r in config.rank_pattern.items()}
    config.lora_alpha *= wider
    config.alpha_pattern = {key: wider * alpha for key, alpha in config.alpha_pattern.items()}
    save_file({name: value.contiguous() for name, value in state.items()}, folder / WEIGHTS)
    config.save_pretrained(str(folder))


def saved_numbers(model: Any) -> int:
    """How many numbers `save_model` writes of a PEFT ``model``."""
    import warnings

    from peft import get_peft_model_state_dict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a model made in memory has no file to compare with
        saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    start: dict[str, Tensor] = getattr(model, _START, None) or {}
    return sum(tensor.numel() for tensor in (*saved.values(), *start.values()))


def _is_factor(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name
