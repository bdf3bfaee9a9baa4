"""What a method trained, as a folder: written, and loaded again on the untouched base model.

A PEFT adapter is written as PEFT does it. A plain module, which PEFT knows nothing of, has two files:

==============================  ====================================================================================
``adapter_method.json``         ``method`` (module:Class), ``params``, and the distribution that the class is of
``adapter_model.safetensors``   every parameter and buffer of the model that is not the base model's, by name
==============================  ====================================================================================

What `attach` draws and never trains (a frozen random projection) is among them, since whoever loads it draws another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosld_bench._version import __version__
from mosld_bench.compat.peft import CONFIG, WEIGHTS
from mosld_bench.errors import BadFileError, BenchError, MethodError
from mosld_bench.methods import author
from mosld_bench.methods.attaching import attach
from mosld_bench.records.method_code import plugin_code
from mosld_bench.spec.plain_file import read_json_mapping

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mosld_bench.methods.base import Method

#: The file that tells a plain module's folder; its numbers are in the file that PEFT's adapters have, too.
METHOD_FILE = "adapter_method.json"


def own_state(model: nn.Module, base: nn.Module) -> dict[str, Tensor]:
    """Name -> parameter or buffer of ``model`` that trains or is not that of ``base``; a tied one once.

    Told by the memory that they are in, so that it does not matter how the method has wrapped the layers.
    """
    from mosld_bench.compat.bitsandbytes import beside_weights
    from mosld_bench.compat.torch import memory

    shared = {memory(parameter) for parameter in base.parameters()}
    buffers = dict(base.named_buffers())
    own: dict[str, Tensor] = {}
    seen: set[int] = set()
    beside = beside_weights(model)
    for name, value in model.state_dict(keep_vars=True).items():
        if name.startswith(beside):
            continue
        of_base = (memory(value) in shared and not value.requires_grad) or _same(value, buffers.get(name))
        if of_base or id(value) in seen:
            continue
        seen.add(id(value))
        own[name] = value
    return own


def _same(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and value.shape == other.shape and bool((value == other).all())


def write(method: Method, model: nn.Module, base: nn.Module, params: Mapping[str, Any], folder: Path) -> None:
    """Write into ``folder`` what `read` makes ``model`` of again: ``method`` at ``params`` on ``base``, trained."""
    from safetensors.torch import save_file

    from mosld_bench.compat.peft import save_model

    if hasattr(model, "peft_config"):
        save_model(model, folder)
        return
    name = f"{type(method).__module__}:{type(method).__qualname__}"
    code = plugin_code(name)
    content = {
        "method": name,
        "params": dict(params),
        "distribution": code["distribution"],
        "version": code["version"],
        "mosld_bench": __version__,
    }
    state = {key: value.detach().cpu().clone().contiguous() for key, value in own_state(model, base).items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / METHOD_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read(method: Method | None, model: nn.Module, folder: Path) -> nn.Module:
    """``model``, a base model, with what ``folder`` has on it, frozen and in evaluation mode. No pickle is read.

    ``method`` is needed for a plain module alone. Raises MethodError where its `attach` has no place for what was
    saved, and BenchError for a folder that holds no adapter, or one of another model.
    """
    if (folder / CONFIG).is_file():
        loaded = _read_peft(model, folder)
    elif method is not None and (folder / METHOD_FILE).is_file():
        from safetensors.torch import load_file

        content = _content(folder)
        loaded = attach(method, model, content["params"])
        _fill(loaded, load_file(folder / WEIGHTS), type(method))
    elif (folder / "config.json").is_file():
        from transformers import AutoModelForCausalLM

        if not any(folder.glob("*.safetensors")):
            raise BenchError(f"{folder} holds config.json and no safetensors, without which there is no model to load.")
        loaded = AutoModelForCausalLM.from_pretrained(str(folder), use_safetensors=True)
    else:
        raise BenchError(
            f"{folder} holds no adapter: it has neither an adapter_config.json, nor {METHOD_FILE}, nor a whole model."
        )
    return loaded.requires_grad_(False).eval()


def _read_peft(model: nn.Module, folder: Path) -> nn.Module:
    from mosld_bench.compat.peft_folder import load_adapter as load_peft

    if not (folder / WEIGHTS).is_file():
        raise BenchError(f"{folder} holds {CONFIG} and no {WEIGHTS}, without which there is no adapter to load.")
    loaded = load_peft(model, folder)
    if loaded.misfit:
        raise BenchError(f"The adapter in {folder} does not fit the model: {loaded.misfit}.")
    adapted: nn.Module = loaded.model
    return adapted


def load_adapter(model: nn.Module, folder: str | Path) -> nn.Module:
    """``model``, an untouched base model, with the adapter that a trial left in ``folder`` (``--save-adapters``).

    For what PEFT trained as for what a plain module did; frozen and in evaluation mode. Raises BenchError where the
    folder has no adapter, or its method cannot be loaded.
    """
    from mosld_bench.methods import registry

    folder = Path(folder)
    if not (folder / METHOD_FILE).is_file():
        return read(None, model, folder)
    method = _content(folder).get("method")
    if not isinstance(method, str):
        raise BadFileError(f"{folder / METHOD_FILE} names no method, as a trial leaves it.")
    return registry.get(method).load(model, folder)


def _content(folder: Path) -> dict[str, Any]:
    """What `METHOD_FILE` says. Raises BadFileError where it is not as `write` leaves it."""
    content = read_json_mapping(folder / METHOD_FILE)
    if not isinstance(content.get("params"), dict):
        raise BadFileError(f"{folder / METHOD_FILE} has no params of a method, as a trial leaves it.")
    return content


def _fill(model: nn.Module, saved: Mapping[str, Tensor], cls: type) -> None:
    """Set the parameters and buffers of ``model`` that were saved. Raises MethodError where there is no such one."""
    import torch

    places = model.state_dict(keep_vars=True)
    for name, value in saved.items():
        there = places.get(name)
        if there is None or there.shape != value.shape:
            shape = "no such parameter" if there is None else f"one of the shape {tuple(there.shape)}"
            raise MethodError(
                f"{name} of the shape {tuple(value.shape)} was saved of the method {author.named(cls)}, and the model "
                f"that its attach makes anew has {shape}."
            )
        with torch.no_grad():
            there.copy_(value)
