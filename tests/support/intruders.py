"""Methods that reach beyond what is theirs: LoRA, and one thing besides that a trial after them could notice."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from transformers.models.llama.modeling_llama import LlamaMLP

from mosld_bench.methods.builtin import PeftMethod

PARAMS: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}
_llama_mlp = LlamaMLP.forward


def a_weight(model: Any) -> nn.Parameter:
    """A frozen weight that the model shares with its base model."""
    weight: nn.Parameter = model.get_base_model().model.layers[0].mlp.up_proj.weight
    return weight


class Intruder(PeftMethod):
    """LoRA with a deed in ``attach``."""

    def deed(self, model: nn.Module) -> None:
        """What it does besides."""

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        """LoRA, then the deed."""
        adapted = super().attach(model, params)
        if not next(adapted.parameters()).is_meta:  # counting is done in the process that plans
            self.deed(adapted)
        return adapted


class WritesWithTorch(Intruder):
    """Writes into a shared weight through ``.data`` while it attaches, as some initial values do: it may."""

    def deed(self, model: nn.Module) -> None:
        """Half of it, and a row of zeros through a view."""
        a_weight(model).data *= 0.5
        a_weight(model).data[3].zero_()


class WritesBehindTorch(Intruder):
    """Writes into a shared weight while it attaches, by a way that torch does not see."""

    def deed(self, model: nn.Module) -> None:
        """One number of it."""
        a_weight(model).numpy()[1, 1] += 1e-3


class SwapsBehindTorch(Intruder):
    """Leaves every sum over rows and columns of numbers as it is, nearly."""

    def deed(self, model: nn.Module) -> None:
        """Two numbers change places."""
        values = a_weight(model).numpy()
        values[1, 1], values[2, 2] = values[2, 2].copy(), values[1, 1].copy()


class WritesInTraining(Intruder):
    """Writes into a shared weight through ``.data`` before a step."""

    def before_step(self, model: nn.Module) -> None:
        """All of it."""
        a_weight(model).data.mul_(1.01)


class ChangesConfig(Intruder):
    """Changes the configuration of the model that it is given, and its modules: it may."""

    def deed(self, model: Any) -> None:
        """So that whoever shared them would get other numbers."""
        config = model.get_base_model().config
        config.use_cache = False
        config.rope_parameters["rope_theta"] = 7.0
        model.get_base_model().model.rotary_emb.inv_freq.mul_(0.5)
        model.get_base_model().model.norm.variance_epsilon = 0.1
        model.register_forward_hook(lambda module, inputs, output: None)
        model.get_base_model().model.layers[1].register_forward_pre_hook(lambda module, inputs: None)


class LeavesHook(Intruder):
    """Leaves a hook behind that runs after the forward of every module there is."""

    def deed(self, model: nn.Module) -> None:
        """A hook that doubles what layer norms give."""
        register_module_forward_hook(lambda module, inputs, output: 2 * output if "Norm" in str(module) else None)


class SetsDefaultDtype(Intruder):
    """Sets torch's default dtype and leaves it."""

    def deed(self, model: nn.Module) -> None:
        """As a library would that computes its start in double precision."""
        torch.set_default_dtype(torch.float64)


class PatchesClass(Intruder):
    """Replaces the code of a class of modules, and so of every model that has it."""

    def deed(self, model: nn.Module) -> None:
        """A feed-forward block that gives half."""
        LlamaMLP.forward = lambda block, x: 0.5 * _llama_mlp(block, x)


class SeedsGenerators(Intruder):
    """Sets the global generators to a place of its own, and draws from all of them: it may."""

    def deed(self, model: nn.Module) -> None:
        """Its factors are filled with what Python's and NumPy's generators give."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        with torch.no_grad():
            for parameter in trained[::2]:
                parameter.fill_(random.random() + np.random.rand())
        torch.manual_seed(99)
        np.random.seed(99)
        random.seed(99)


class Raises(WritesBehindTorch):
    """Writes, and fails afterwards for a reason of its own."""

    def deed(self, model: nn.Module) -> None:
        """A trial that fails by itself must not leave its writes either."""
        super().deed(model)
        raise RuntimeError("not my day")


#: Those that touch nothing but what is theirs.
ALLOWED: list[type[Intruder]] = [WritesWithTorch, ChangesConfig, SeedsGenerators]
#: Those that do -> what they are told to have changed, and by what.
FORBIDDEN: dict[type[Intruder], tuple[str, str]] = {
    WritesBehindTorch: ("the weight model.layers.0.mlp.up_proj.weight of the shared base model", "attaching"),
    SwapsBehindTorch: ("the weight model.layers.0.mlp.up_proj.weight of the shared base model", "attaching"),
    WritesInTraining: ("the weight model.layers.0.mlp.up_proj.weight of the shared base model", "training"),
    LeavesHook: ("torch's hooks of all modules", "attaching"),
    SetsDefaultDtype: ("torch's default dtype (torch.float32 became torch.float64)", "attaching"),
    PatchesClass: ("the code of LlamaMLP", "attaching"),
}
#: All that no trial ends well with.
FAILING: list[type[Intruder]] = [*FORBIDDEN, Raises]


def path(method: type[Intruder]) -> str:
    """How a recipe names a method of this module."""
    return f"{method.__module__}:{method.__name__}"
