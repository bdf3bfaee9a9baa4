"""Base models: where they are on this machine, and loading their configuration, tokenizer and weights."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.errors import BenchError, ModelError, fetch_hint, first_line
from mosld_bench.inputs.hub import why_nothing_came
from mosld_bench.inputs.model_check import LARGEST, check_folder, check_sizes
from mosld_bench.inputs.rounding import check_can_round, options_of, refuse_rounded_twice
from mosld_bench.inputs.source_note import check_revision, read_note
from mosld_bench.spec.model_folder import MODEL_FILES as MODEL_FILES
from mosld_bench.spec.model_folder import content_digest
from mosld_bench.spec.trial import ModelSpec
from mosld_bench.spec.workspace import cache_home

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

NOT_MODEL_FILES = ["onnx/*", "runs/*"]
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SHAPES = Path(__file__).parent / "shapes.json"


def fetch_folder(name: str) -> Path:
    """The folder where ``mosld-bench fetch`` puts the model ``name``."""
    return cache_home() / "models" / name.replace("/", "--")


def place(spec: ModelSpec, model_root: Path | None = None, *, weights: bool = True) -> str:
    """Where the model is: the folder that its study has found, else as `find` says of its name."""
    return find(spec.name, model_root, weights=weights) if spec.folder is None else _checked(Path(spec.folder), weights)


def find(name: str, model_root: Path | None = None, *, weights: bool = True) -> str:
    """A local folder of the model, else its hub id. Raises ModelError for a folder that is not a usable model.

    Looked for below ``model_root`` first, then as a path, then where ``fetch`` puts it. ``weights``: whether they must
    be there, and not the configuration alone. Raises ModelError too for a name that is neither a path nor a hub id.
    """
    if name == "embedded":
        return str(MODEL_DIR)
    shown = name if len(name) < 200 else f"{name[:200]}…"
    try:
        candidates = [Path(name).expanduser()]
        if model_root is not None:
            candidates = [model_root / name, model_root / name.rsplit("/", 1)[-1], *candidates]
        for folder in (*candidates, fetch_folder(name)):
            if folder.is_dir():
                return _checked(folder, weights)
    except (OSError, RuntimeError) as error:  # too long for the system, or ~ of nobody
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"The model {shown!r} cannot be looked for ({reason}).") from error
    if name.startswith((".", "/", "~")):
        raise ModelError(f"There is no model folder {shown}.")
    if not _HUB_ID.fullmatch(name) or len(name) > 96:
        raise ModelError(f"{shown!r} is no model: neither a folder, nor a hub id (NAME or ORGANISATION/NAME).")
    return name


def _checked(folder: Path, weights: bool) -> str:
    """``folder``. Raises ModelError where it has no configuration, or no safetensors if ``weights`` are needed."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"The model folder {folder} has no config.json.")
    if weights and not list(folder.glob("*.safetensors")):
        pickles = [p.name for p in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth"))]
        contents = f"only {', '.join(sorted(pickles))}, and pickles are not read" if pickles else "no weights"
        raise ModelError(f"The model folder {folder} has {contents}. Save the weights as safetensors.")
    return str(folder)


def weights_source(spec: ModelSpec, model_root: Path | None = None) -> dict[str, str]:
    """Where the weights came from, for the record: what is known of ``source``, ``revision``, ``sha256``, ``note``."""
    content = read_note(Path(place(spec, model_root)))
    if spec.folder is not None and "sha256" not in content:
        return {"source": spec.name, "revision": spec.revision or content_digest(Path(spec.folder))}
    if not content:
        return {"source": spec.name, "revision": spec.revision or "main"}
    return {key: content[key] for key in ("source", "revision", "sha256", "note") if key in content}


def load_config(spec: ModelSpec, model_root: Path | None = None) -> PreTrainedConfig:
    """The model's configuration; the weights are not read.

    From a local folder, else from the shapes that come with the package, so that planning needs no network, else from
    the hub. A shape holds what sizes depend on and no more: weights and tokenizers are never read by it.
    """
    from transformers import AutoConfig

    shapes = json.loads(_SHAPES.read_text(encoding="utf-8"))
    if spec.name in shapes and not Path(place(spec, model_root, weights=False)).is_dir():
        known: PreTrainedConfig = AutoConfig.for_model(**shapes[spec.name])
        return known
    config: PreTrainedConfig = _read(AutoConfig, spec, model_root, weights=False)
    check_sizes(spec.name, {key: getattr(config, key, None) for key in LARGEST})
    refuse_rounded_twice(spec, config)
    return config


def load_tokenizer(spec: ModelSpec, model_root: Path | None = None) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a padding token: the one that ends a text where it has none.

    Raises ModelError where it cannot be loaded.
    """
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = _read(AutoTokenizer, spec, model_root)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(
    spec: ModelSpec, dtype: torch.dtype, device: torch.device | str, model_root: Path | None = None
) -> nn.Module:
    """The pre-trained model, frozen, in evaluation mode. Reads safetensors only and runs no code of the hub.

    Weights of its linear layers, but for the output's, are rounded where the spec says so (`ModelSpec.load`); what is
    not has ``dtype``. Raises ModelError where it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    check_can_round(spec)
    rounding = options_of(spec.load, dtype, device) if spec.load else {}
    model: nn.Module
    model, found = _read(
        AutoModelForCausalLM, spec, model_root, dtype=dtype, use_safetensors=True, output_loading_info=True, **rounding
    )
    if lacking := sorted(found["missing_keys"]):
        raise ModelError(
            f"The weights of the model {spec.name!r} lack {len(lacking):,} of its parameters, the first {lacking[0]}; "
            f"random numbers would take their place."
        )
    if spec.load:
        from mosld_bench.compat.bitsandbytes_layers import settle

        settle(model, dtype)
    return model.to(device).requires_grad_(False).eval()


def _read(auto: Any, spec: ModelSpec, model_root: Path | None, *, weights: bool = True, **options: Any) -> Any:
    """``auto.from_pretrained`` of one of transformers' Auto classes; ``options`` go to it."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    location = place(spec, model_root, weights=weights)
    is_folder = Path(location).is_dir()
    if is_folder:
        check_folder(spec.name, Path(location), weights="use_safetensors" in options)
    revision = {} if is_folder else {"revision": spec.revision or "main"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return auto.from_pretrained(location, trust_remote_code=False, **revision, **options)
    except (BenchError, MemoryError):
        raise
    except Exception as error:  # of what others wrote, which transformers checks as it goes: anything
        reason = first_line(error)[:300]
        if is_folder and "out of memory" not in reason:
            raise ModelError(f"The model {spec.name!r} in {location} cannot be loaded ({reason}).") from error
        raise _cannot_load(spec, reason) from error


def ensure_weights(spec: ModelSpec, model_root: Path | None = None) -> None:
    """Raises ModelError where the weights are neither here nor to be had, or those here are of another revision.

    And where what is to round them is not installed. May download them, once for all workers.
    """
    check_can_round(spec)
    location = place(spec, model_root)
    if Path(location).is_dir():
        check_revision(Path(location), spec.revision, ModelError)
        check_folder(spec.name, Path(location), weights=True)
        return
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(location, revision=spec.revision, allow_patterns=MODEL_FILES, ignore_patterns=NOT_MODEL_FILES)
    except Exception as error:  # no network has many faces
        raise _cannot_load(spec, why_nothing_came(error)) from error


def _cannot_load(spec: ModelSpec, reason: str) -> ModelError:
    return ModelError(f"The model {spec.name!r} cannot be loaded ({reason}). {model_hint(spec)}")


def model_hint(spec: ModelSpec) -> str:
    """How to get the model. One at a pinned revision is fetched by its study, which holds the pin."""
    return fetch_hint(f"--model {spec.name}" if spec.revision is None else "STUDY", "--model-root")
