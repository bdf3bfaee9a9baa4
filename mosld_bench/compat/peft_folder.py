"""Adapters in folders, as PEFT writes and reads them: what of that goes beyond its documentation."""

from __future__ import annotations

import copy
import json
import warnings
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mosld_bench.compat.peft import CONFIG, WEIGHTS, base_name, frozen_stays_frozen
from mosld_bench.time_limit import TookTooLongError, cpu_limit

if TYPE_CHECKING:
    from torch import nn


def name_base(model: Any, folder: Path, base: str, revision: str | None) -> None:
    """Have the adapter of ``model`` in ``folder``, as `peft.save_model` left it, name its base model as ``base``.

    PEFT notes the path that the model was loaded from, which means nothing elsewhere. What PEFT holds as a set, such as
    ``target_modules``, is put in order: its own order is another in every process.
    """
    file = folder / CONFIG
    content, config = json.loads(file.read_text(encoding="utf-8")), model.active_peft_config
    for key, value in content.items():
        if isinstance(getattr(config, key, None), set | frozenset):
            content[key] = sorted(value)
    content |= {"base_model_name_or_path": base, "revision": revision}
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


class LoadedAdapter(NamedTuple):
    """A model with an adapter that was read from a folder.

    ``trainable`` parameters are those that train on; of virtual tokens, which PEFT saves without what made them, what
    is saved. ``stored``: numbers in the file. ``strangers``: names of numbers that the model's adapter needs and the
    file lacks, and of those in the file that the model has no place for.
    """

    model: Any
    trainable: int
    stored: int
    strangers: list[str]

    @property
    def misfit(self) -> str:
        """Why it is none of this model's adapters, as a clause; empty where it is one."""
        if not self.strangers:
            return ""
        return f"{len(self.strangers):,} of its numbers are on one side only, the first {self.strangers[0]}"


def load_adapter(base: nn.Module, folder: Path) -> LoadedAdapter:
    """``base`` with the adapter in ``folder``. Only safetensors are read.

    PEFT would read a pickle where these are missing, so FileNotFoundError is raised. Raises whatever PEFT raises where
    the adapter does not fit the model.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict

    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(folder / WEIGHTS)
    known = {name for name, _ in base.named_parameters()}
    with warnings.catch_warnings(), frozen_stays_frozen():
        warnings.simplefilter("ignore")  # that numbers are missing: they are looked for below
        virtual = PeftConfig.from_pretrained(str(folder)).is_prompt_learning
        model = PeftModel.from_pretrained(base, str(folder), is_trainable=not virtual)
        expected = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    stored = _stored(folder)
    numbers = sum(stored.values())
    trains = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    extra = {name for name in stored.keys() - expected if base_name(name) not in known}  # embeddings are saved along
    return LoadedAdapter(model, numbers if virtual else trains, numbers, sorted((expected - stored.keys()) | extra))


def oversize(base: nn.Module, folder: Path) -> str:
    """Why the adapter in ``folder`` is not to be built on ``base``, as a clause; empty where nothing speaks against it.

    Its configuration may ask for any number of numbers, whatever the file holds: it is built without memory first. What
    the file lacks may be no more than the base model has: methods have fixed projections and the like beside it.
    """
    import torch
    from peft import PeftConfig, get_peft_model
    from torch import nn

    from mosld_bench.compat.bitsandbytes import is_rounded

    if any(is_rounded(parameter) for parameter in base.parameters()):
        return ""  # no rounded weight is without memory
    shapes: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False) for p in base.parameters()
    }
    try:
        with cpu_limit(_SECONDS), warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            config = PeftConfig.from_pretrained(str(folder))
            if hasattr(config, "init_lora_weights"):
                config.init_lora_weights = True  # a start that is taken out of the base weights needs these
            config.inference_mode = True
            built = get_peft_model(copy.deepcopy(base, shapes), config)
            there = {id(tensor) for tensor in shapes.values()}
            made = sum(t.numel() for t in (*built.parameters(), *built.buffers()) if id(t) not in there)
        stored = sum(_stored(folder).values())
    except TookTooLongError:
        return f"its configuration asks for more layers than are made in {_SECONDS:g} s"
    except Exception:  # of PEFT, where a method needs values; what is wrong is seen when it is loaded
        return ""
    if made <= stored + sum(p.numel() for p in base.parameters()):
        return ""
    return f"its configuration asks for {made:,} numbers, of which the file holds {stored:,}"


#: CPU time of building an adapter without memory; on the largest models it takes a few seconds.
_SECONDS = 15.0


def _stored(folder: Path) -> dict[str, int]:
    """Name -> how many numbers the file of an adapter in ``folder`` holds of it; the numbers are not read."""
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, "pt") as file:
        return {name: prod(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
