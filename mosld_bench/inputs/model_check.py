"""A model's folder looked at before anything of it is loaded: sizes that can be, files that are whole and lie in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mosld_bench.errors import BadFileError, ModelError, first_line
from mosld_bench.spec.plain_file import read_json_mapping

#: Sizes of a configuration and the largest that is built: some ten times those of the largest models that there are.
LARGEST = {
    "num_hidden_layers": 2_000,
    "n_layer": 2_000,
    "n_layers": 2_000,
    "num_layers": 2_000,
    "hidden_size": 1_000_000,
    "n_embd": 1_000_000,
    "d_model": 1_000_000,
    "head_dim": 100_000,
    "intermediate_size": 10_000_000,
    "num_attention_heads": 10_000,
    "n_head": 10_000,
    "num_key_value_heads": 10_000,
    "num_local_experts": 10_000,
    "num_experts": 10_000,
    "state_size": 100_000,
    "max_position_embeddings": 1_000_000_000,
    "vocab_size": 100_000_000,
}

#: Of a size that a model may lack.
_MAY_BE_ZERO = frozenset({"num_local_experts", "num_experts"})

_INDEX = "model.safetensors.index.json"
_MAX_CONFIG, _MAX_INDEX = 1 << 24, 1 << 27  # bytes


def check_folder(name: str, folder: Path, *, weights: bool) -> None:
    """Make sure that what is in the ``folder`` of the model ``name`` can be loaded, as far as that can be told.

    That is its configuration, and where they are needed its ``weights``: each file whole, and all of them in the
    folder. Raises ModelError.
    """
    try:
        config = read_json_mapping(folder / "config.json", most_bytes=_MAX_CONFIG)
        files = list(_weight_files(folder)) if weights else []
    except BadFileError as error:
        raise ModelError(f"The model {name!r} cannot be loaded: {error}") from None
    check_sizes(name, config)
    _check_attention(name, config)
    for file in files:
        _check_weights(name, file)


def check_sizes(name: str, config: Mapping[str, Any]) -> None:
    """Raises ModelError for a size that no model has: a model of a million layers is never built."""
    for key, most in LARGEST.items():
        size = config.get(key)
        if size is None or isinstance(size, list):
            continue
        if type(size) is not int or not (0 if key in _MAY_BE_ZERO else 1) <= size <= most:
            raise ModelError(
                f"The configuration of the model {name!r} says {key}: {str(size)[:40]}; 1 to {most:,} can be built."
            )
    heads, shared = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(shared, int) and heads % shared:
        raise ModelError(
            f"The configuration of the model {name!r} contradicts itself: num_attention_heads ({heads}) is no multiple "
            f"of num_key_value_heads ({shared})."
        )


def _check_attention(name: str, config: Mapping[str, Any]) -> None:
    """Raises ModelError for an attention that is a repository of the hub: transformers would run its code."""
    for key in ("_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation"):
        if "/" in str(config.get(key)):
            raise ModelError(
                f"The configuration of the model {name!r} asks for {key}: {str(config[key])[:80]}, code of the hub, of "
                f"which none is run. Remove that key."
            )


def _weight_files(folder: Path) -> Iterator[Path]:
    """The files that transformers will read. Raises BadFileError for an index that names others than in ``folder``."""
    index = folder / _INDEX
    if (folder / "model.safetensors").exists() or not index.exists():
        yield from sorted(folder.glob("*.safetensors"))
        return
    places = read_json_mapping(index, most_bytes=_MAX_INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise BadFileError(f"{index} has no weight_map, which says in which file each parameter is.")
    for place in sorted({str(place)[:300] for place in places.values()}):
        if Path(place).name != place or not place.endswith(".safetensors"):
            raise BadFileError(f"{index} names {place!r}; the files of a model are *.safetensors in its own folder.")
        if not (folder / place).is_file():
            raise BadFileError(f"{index} names {place!r}, which is not in the folder.")
        yield folder / place


def _check_weights(name: str, file: Path) -> None:
    """Raises ModelError for a file that is no whole safetensors; its head is read, and its length is looked at."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise ModelError(f"The model {name!r} cannot be loaded: {file} is no regular file.")
    try:
        with safe_open(file, framework="np"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"The weights of the model {name!r} cannot be read: {file} is no whole safetensors file "
            f"({first_line(error)[:200]}). Fetch or copy it again."
        ) from None
