"""Adapters of recipes on the embedded model, trained by nobody: random where training would have left something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mosld_bench.compat.peft import CONFIG, save_model
from mosld_bench.compat.peft_folder import name_base
from mosld_bench.embedded import MODEL_DIR
from mosld_bench.inputs.models import load_base
from mosld_bench.methods import registry
from mosld_bench.methods.live import attached_copy
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import ModelSpec
from tests.conftest import REPOSITORY


def write_adapter(folder: Path, recipe: str, *, base: str = "embedded", model: Any = None) -> Any:
    """Write an adapter of ``recipe`` (or a whole model) to ``folder``; returns the model with it.

    ``base``: what it names as its base model; ``model``: another one than the embedded.
    """
    declared = Recipe.load(REPOSITORY / "methods" / f"{recipe}.yaml")
    start = load_base(ModelSpec(name=str(MODEL_DIR)), torch.float32, "cpu") if model is None else model
    adapted: Any = attached_copy(registry.get(declared.method), start, declared.params, seed=0).model
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in (one for one in adapted.parameters() if one.requires_grad):
            parameter.add_(0.05 * torch.randn_like(parameter))
    folder.mkdir(parents=True, exist_ok=True)
    save_model(adapted, folder)
    if (folder / CONFIG).is_file():
        name_base(adapted, folder, base, None)
    return adapted.eval()
