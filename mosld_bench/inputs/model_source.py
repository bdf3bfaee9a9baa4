"""What a base model is called where this machine is not known, and under what licence it is."""

from __future__ import annotations

from pathlib import Path

from mosld_bench.errors import ModelError
from mosld_bench.inputs.models import place
from mosld_bench.inputs.source_note import read_note
from mosld_bench.spec.trial import ModelSpec

_HUB = "hub:"  # how the source of a model from the hub begins, in the note that `fetch` leaves


def public_name(spec: ModelSpec, model_root: Path | None = None) -> str:
    """What others know the model by: its hub id, ``embedded``, or of a folder of one's own its name; never a path."""
    if spec.name == "embedded":
        return spec.name
    source = str(_note(spec, model_root).get("source", ""))
    return source.removeprefix(_HUB) if source.startswith(_HUB) else spec.name


def public_revision(spec: ModelSpec) -> str | None:
    """The commit on the hub that is asked for; None of a model that is in a folder or in this package."""
    return None if spec.name == "embedded" or spec.folder is not None else spec.revision


def licence(spec: ModelSpec, model_root: Path | None = None) -> str | None:
    """The licence that the model's card gives, where the card is here: beside the weights or in the hub's cache."""
    if spec.name == "embedded":
        return "apache-2.0"  # made by this package, and of its licence
    card = _card(spec, model_root)
    if card is None:
        return None
    from huggingface_hub import ModelCard

    try:
        named = ModelCard.load(card, ignore_metadata_errors=True).data.license
    except (OSError, ValueError):
        return None
    return named if isinstance(named, str) else None


def _card(spec: ModelSpec, model_root: Path | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    try:
        location = place(spec, model_root, weights=False)
    except ModelError:
        return None
    if Path(location).is_dir():
        file = Path(location) / "README.md"
        return file if file.is_file() else None
    cached = try_to_load_from_cache(location, "README.md", revision=spec.revision)
    return Path(cached) if isinstance(cached, str) else None


def _note(spec: ModelSpec, model_root: Path | None) -> dict[str, object]:
    try:
        return read_note(Path(place(spec, model_root, weights=False)))
    except ModelError:
        return {}
