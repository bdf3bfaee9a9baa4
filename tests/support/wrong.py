"""Methods that go wrong in a trial and not while it is planned: LoRA, and one fault besides."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mosld_bench.methods.builtin import PeftMethod


def has_weights(model: nn.Module) -> bool:
    """Whether this is a trial, and not a count on the meta device."""
    return not any(parameter.is_meta for parameter in model.parameters())


class AttachRaises(PeftMethod):
    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        return super().attach(model, params) if not has_weights(model) else [][1]


class AttachReturnsNothing(PeftMethod):
    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        attached = super().attach(model, params)
        return None if has_weights(model) else attached  # type: ignore[return-value]


class StepRaises(PeftMethod):
    def before_step(self, model: nn.Module) -> None:
        raise KeyError("out of luck")


class StepLeaves(PeftMethod):
    def before_step(self, model: nn.Module) -> None:
        sys.exit("I leave")


class NoMemory(PeftMethod):
    """Asks the allocator for more than there is."""

    def before_step(self, model: nn.Module) -> None:
        torch.empty(1 << 55, dtype=torch.uint8)


class NoMemoryAtFirst(PeftMethod):
    """The same, at the first of its steps in the process alone."""

    tries = 0

    def before_step(self, model: nn.Module) -> None:
        type(self).tries += 1
        if self.tries == 1:
            torch.empty(1 << 55, dtype=torch.uint8)


class NotANumber(PeftMethod):
    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        with torch.no_grad():
            next(parameter for parameter in model.parameters() if parameter.requires_grad).fill_(torch.nan)


class NotANumberAtLast(PeftMethod):
    """After the last validation, so that no loss tells."""

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        if step == steps:
            with torch.no_grad():
                next(parameter for parameter in model.parameters() if parameter.requires_grad).view(-1)[0] = torch.inf


class NeverEnds(PeftMethod):
    """A loop that catches what it can."""

    begun = False

    def before_step(self, model: nn.Module) -> None:
        type(self).begun = True
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue


class EatsMemory(PeftMethod):
    """Half a gigabyte, and more and more."""

    def before_step(self, model: nn.Module) -> None:
        eaten: list[bytearray] = []
        while len(eaten) < 400:
            eaten.append(bytearray(5_000_000))
            time.sleep(0.01)


class SavesNothing(PeftMethod):
    """An adapter as it was before training."""

    def save(self, model: nn.Module, base: nn.Module, params: Mapping[str, Any], folder: Path) -> None:
        from mosld_bench.methods.live import copy_sharing_weights

        PeftMethod().save(self.attach(copy_sharing_weights(base), params), base, params, folder)


class SaveRaises(PeftMethod):
    def save(self, model: nn.Module, base: nn.Module, params: Mapping[str, Any], folder: Path) -> None:
        raise OSError("no such tape")


class TrainsNothing(PeftMethod):
    """Takes back what the optimiser did."""

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.zero_()
