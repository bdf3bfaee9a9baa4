"""`mosld-bench methods add`: a recipe of an ``adapter_config.json``, the file that PEFT saves with every adapter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from mosld_bench.compat.peft import CONFIG, config_classes
from mosld_bench.errors import BadFileError, BenchError, UnknownNameError
from mosld_bench.methods import peft_types, registry
from mosld_bench.methods.base import Method
from mosld_bench.methods.builtin import PeftMethod, TunerMethod
from mosld_bench.spec.plain_file import read_json

#: Fields of a configuration that are of the model, the machine or the run that it was saved from.
_OF_A_PLACE = frozenset({
    "auto_mapping", "base_model_name_or_path", "ephemeral_gpu_offload", "inference_mode", "megatron_config",
    "megatron_core", "num_attention_heads", "num_layers", "num_transformer_submodules", "peft_version", "revision",
    "runtime_config", "task_type", "token_dim", "tokenizer_name_or_path", "total_step",
})  # fmt: skip


@dataclass(frozen=True)
class Taken:
    """What was taken out of a configuration."""

    #: The PEFT type, such as ``LORA``.
    peft_type: str

    #: The method's name, and its params.
    method: str
    params: dict[str, Any]

    #: The field that a budget turns; None for a fixed size.
    knob: str | None

    #: What was left out, in sentences.
    remarks: tuple[str, ...]

    def sentences(self) -> list[str]:
        """What was taken, what a budget turns, and what was left out."""
        settings = ", ".join(f"{key} {value}" for key, value in self.params.items() if key != "peft_type")
        turns = "No budget turns it: it has its native size, apart from the rows of equal size."
        return [
            f"{self.peft_type}: {settings or 'at its defaults'}.",
            f"A budget turns {self.knob}." if self.knob else turns,
            *self.remarks,
        ]

    def yaml(self, name: str, source: str) -> str:
        """The recipe's file."""
        head: dict[str, Any] = {
            "title": name.replace("-", " ").replace("_", " "),
            "method": self.method,
            "group": "own",
            "about": f"{self.peft_type} with the settings of {source}.",
        }
        head |= {"fixed_size": True} if self.knob is None else {}
        return yaml.safe_dump(head | {"params": self.params}, sort_keys=False, allow_unicode=True, width=110)


def read_config(path: Path) -> dict[str, Any]:
    """The content of an adapter's configuration: the file, or the one in the adapter's folder.

    Raises BadFileError for what is no such file.
    """
    path = path / CONFIG if path.is_dir() else path
    try:
        content = read_json(path)
    except BadFileError as error:
        raise BadFileError(f"{error} Give the adapter_config.json of an adapter, or its folder.") from None
    if not isinstance(content, dict) or not isinstance(content.get("peft_type"), str):
        raise BadFileError(f"{path} has no peft_type, so that it is no configuration of PEFT's.")
    return content


def name_of(path: Path) -> str:
    """A recipe's name for the configuration at ``path``: its folder's, or the file's where that has one of its own."""
    stem = path.resolve().name if path.is_dir() else path.stem
    if stem == "adapter_config":
        stem = path.resolve().parent.name
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "adapter"


def take(config: Mapping[str, Any]) -> Taken:
    """The recipe that gives what ``config`` gives, on any model.

    Raises UnknownNameError for a type that PEFT lacks, and BenchError for one, or a setting, that a benchmark cannot
    run or the installed PEFT does not know.
    """
    peft_type, classes = str(config["peft_type"]).upper(), config_classes()
    if peft_type not in classes:
        raise UnknownNameError("PEFT type", peft_type, classes, f"PEFT {version('peft')} is installed.")
    known, defaults = {field.name for field in fields(classes[peft_type])}, peft_types.defaults_of(peft_type)
    ignores = peft_types.kind_of(peft_type).ignores
    text_starts = str(config.get("prompt_tuning_init", "")).upper() == "TEXT"
    place, strange, ignored, params = [], [], [], dict[str, Any]()
    for name, value in config.items():
        if name in _OF_A_PLACE and not (name == "tokenizer_name_or_path" and text_starts):
            place += [name] if value not in (None, False) else []
        elif name not in known:
            if value:
                raise BenchError(
                    f"The configuration sets {name} to {value!r}, which {classes[peft_type].__name__} of the installed "
                    f"PEFT {version('peft')} has no field for. Install the PEFT that wrote it, or take it out."
                )
            strange.append(name)
        elif name in ignores:
            ignored += [f"{name}: PEFT {ignores[name]}"] if value else []
        elif name != "peft_type" and value != defaults.get(name):
            params[name] = sorted(value) if name.endswith("_modules") and isinstance(value, list) else value
    method_name, method = _method_of(peft_type)
    whole = ({"peft_type": peft_type} if isinstance(method, PeftMethod) else {}) | params
    if isinstance(method, PeftMethod) and (reason := peft_types.why_refused(peft_type, whole)):
        raise BenchError(f"The PEFT type {peft_type} cannot be run with these settings: {reason}")
    knob = method.knob_of(whole)
    for name in (knob, *(method.sizing(whole).moves if knob else ())):  # what a reader looks for first
        if name and name not in whole and config.get(name) is not None:
            whole[name] = config[name]
    method.check_numbers(whole)
    remarks = [f"Left out, being of a model, a machine or a run: {', '.join(place)}."] if place else []
    remarks += [f"Left out, which is not the method's to say: {'; '.join(ignored)}."] if ignored else []
    remarks += [f"Left out, off and unknown to PEFT {version('peft')}: {', '.join(strange)}."] if strange else []
    return Taken(peft_type, method_name, whole, knob, tuple(remarks))


def _method_of(peft_type: str) -> tuple[str, Method]:
    """The method that runs a PEFT type: that of a tuner in reach, whose name it goes by, else that of PEFT's own."""
    for name, method in registry.loaded().items():
        if isinstance(method, TunerMethod):
            its = method.config_class()().peft_type
            if str(getattr(its, "value", its)) == peft_type:
                return name, method
    return "peft", registry.get("peft")
