"""Adapters in folders or on the hub: whose they are, before any weights are read, and whether they fit a base model.

A folder is one that PEFT wrote, here or elsewhere. Nothing of it runs: its weights are safetensors, its configuration
names a method that is installed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mosld_bench.compat.peft import CONFIG, WEIGHTS, config_classes
from mosld_bench.errors import BadFileError, ModelError, UnknownNameError
from mosld_bench.inputs.hub import why_nothing_came
from mosld_bench.inputs.model_source import public_name
from mosld_bench.methods import peft_types
from mosld_bench.spec.plain_file import is_folder, read_json_mapping
from mosld_bench.spec.trial import ModelSpec, canonical

#: Fields of a configuration that change no number: where the base model is, and what wrote or reads it.
_NO_NUMBER = frozenset({"base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping"})

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter that PEFT saved: its ``folder``, its configuration, and its ``hub_id`` if it is from there."""

    folder: Path
    config: dict[str, Any]
    hub_id: str | None = None

    @property
    def peft_type(self) -> str:
        """Its method, as PEFT calls it: LORA, MIXTURE."""
        return str(self.config["peft_type"])

    @property
    def base(self) -> str | None:
        """The base model that it names: a hub id, a path of whoever saved it, or None."""
        return self.config.get("base_model_name_or_path")

    @property
    def unknown(self) -> list[str]:
        """The settings in its configuration that PEFT does not know here, and would pass over: of a newer one."""
        known = config_classes()[self.peft_type]
        return sorted(self.config.keys() - {field.name for field in fields(known)} - _NO_NUMBER)

    @property
    def name(self) -> str:
        """The folder's name; of one called ``adapter``, that of the folder it is in. Of a hub id the last part."""
        if self.hub_id is not None:
            return self.hub_id.partition("@")[0].rsplit("/", 1)[-1]
        folder = self.folder.resolve()
        return folder.parent.name if folder.name == "adapter" else folder.name

    @property
    def place(self) -> str:
        """Where a user finds it: the hub id, or the folder."""
        return self.hub_id or str(self.folder)

    @cached_property
    def sha256(self) -> str:
        """Of the weights."""
        with (self.folder / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def config_sha256(self) -> str:
        """Of what changes numbers in the configuration: the same whatever the base model's path is."""
        content = {key: value for key, value in self.config.items() if key not in _NO_NUMBER}
        return hashlib.sha256(canonical(content).encode()).hexdigest()


def find_adapter(given: str) -> AdapterFolder:
    """The adapter in the folder ``given``, or of that hub id (``owner/name``, ``owner/name@revision``).

    A hub id is one where there is no such folder; the hub's cache has it, or it comes there. Raises as `read_adapter`
    does, and ModelError where the hub gives nothing.
    """
    folder = Path(given)
    if is_folder(folder) or not _HUB_ID.fullmatch(given):
        return read_adapter(folder.expanduser())
    from huggingface_hub import snapshot_download

    name, _, revision = given.partition("@")
    try:
        copy = snapshot_download(name, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS])
    except Exception as error:  # no network has many faces
        raise ModelError(
            f"There is no folder {given}, and of the hub nothing came for an adapter of that name "
            f"({why_nothing_came(error)}). --adapter takes a folder that PEFT's save_pretrained wrote, or a hub id."
        ) from error
    return replace(read_adapter(Path(copy)), hub_id=given)


def read_adapter(folder: Path) -> AdapterFolder:
    """The adapter in ``folder``; its weights are not read.

    Raises ModelError for a folder that holds none, or holds it as a pickle, and for a method that cannot be run, and
    UnknownNameError for one that PEFT does not know here.
    """
    if not is_folder(folder):
        raise ModelError(
            f"There is no folder {folder}; --adapter takes one that PEFT's save_pretrained wrote, or a hub id."
        )
    file = folder / CONFIG
    if not file.is_file():
        whole = (folder / "config.json").is_file()
        advice = f"It is a whole model: give it as MODEL ({folder})." if whole else f"It needs {CONFIG} and {WEIGHTS}."
        raise ModelError(f"The folder {folder} has no {CONFIG}. {advice}")
    try:
        config = read_json_mapping(file)
    except BadFileError as error:
        raise ModelError(f"{file} is no configuration of an adapter: {error}") from error
    peft_type = config.get("peft_type")
    if not isinstance(peft_type, str):
        raise ModelError(f"{file} is no configuration of an adapter: it has no peft_type.")
    if not isinstance(config.get("base_model_name_or_path", ""), str | None):
        raise ModelError(f"{file}, base_model_name_or_path: must be the name of a model, or null.")
    if config.get("megatron_config"):
        raise ModelError(f"{file} asks for another library's layers (megatron_config), which would be imported.")
    known = config_classes()
    if peft_type not in known:
        hint = f"It is named in {file}. A package that brings its method is loaded by --plugin MODULE."
        raise UnknownNameError("PEFT type", peft_type, known, hint)
    if reason := peft_types.kind_of(peft_type).refused:
        raise ModelError(f"The adapter {folder} is of the PEFT type {peft_type}, which cannot be scored: {reason}")
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        contents = f"only {', '.join(pickles)}, and pickles are not read" if pickles else "no weights"
        raise ModelError(f"The adapter folder {folder} has {contents}. Save the adapter as safetensors ({WEIGHTS}).")
    return AdapterFolder(folder, config)


def check_base(adapter: AdapterFolder, model: ModelSpec, model_root: Path | None) -> str | None:
    """Make sure that ``adapter`` is one of ``model``, by the names. A sentence where they do not tell; else None.

    Whether the weights fit is seen when they are loaded. Raises ModelError for an adapter of another hub model.
    """
    named, asked = adapter.base, public_name(model, model_root)
    if named is None or _is_path(named):
        where = "no base model" if named is None else f"its base model by a path that ends in {_last(named)!r}"
        same = named is not None and _last(named) == _last(asked)
        return None if same else f"The adapter names {where}; whether it was trained on {asked!r} cannot be told."
    if named == asked or (("/" not in named or "/" not in asked) and _last(named) == _last(asked)):
        return None
    raise ModelError(
        f"The adapter {adapter.place} is of the base model {named!r}, and {asked!r} is to be scored with it. Give "
        f"{named!r} as MODEL; if both are one model, name it {asked!r} in {CONFIG} (base_model_name_or_path)."
    )


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1


def _last(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()
