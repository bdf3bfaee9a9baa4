"""Methods by name: the contract of a method, and the three doors through which one comes in.

A method enters by the entry point group ``mosld_bench.methods`` of an installed package (the built-in ones too), by
``--plugin module`` whose import calls :func:`register`, or in a recipe as ``method: "module:Class"``.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from mosld_bench.errors import BenchError, UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor, nn

GROUP = "mosld_bench.methods"


class Method(ABC):
    """An algorithm that makes a frozen language model trainable in few parameters.

    The contract, held by :func:`mosld_bench.methods.contract.check_method`: after ``attach`` exactly the method's own
    parameters require a gradient, and the model's output is what it was before (unless ``starts_at_zero`` says no).
    """

    #: Integer field of ``params`` that the budget solver turns, or None where the size is fixed.
    knob: ClassVar[str | None] = None

    #: Fields that move in proportion to the knob (``lora_alpha`` with ``r``: the scale alpha / r is held).
    proportional: ClassVar[tuple[str, ...]] = ()

    #: Field, if any, that raises the knob for single modules (PEFT's ``rank_pattern``: module name -> knob).
    pattern: ClassVar[str | None] = None

    #: What ``pattern`` is to the knob, for the proportional fields (``lora_alpha`` -> ``alpha_pattern``).
    proportional_patterns: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        """Return ``model`` (wrapped or changed in place) with the method's parameters requiring a gradient.

        Must work on the meta device too, since that is how parameters are counted.
        """

    def aux_loss(self, model: nn.Module) -> Tensor | None:
        """A scalar to add to the loss of the step just computed (a balance loss), or None."""
        return None

    def before_step(self, model: nn.Module) -> None:
        """Called once before every optimiser step, whatever the number of micro-batches."""
        return

    def active(self, model: nn.Module) -> int:
        """How many of the trained parameters of ``model`` (what ``attach`` returned) enter the output of one token.

        All of them, unless the method picks some for each token: a router with top-K leaves the other experts out.
        """
        return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    def starts_at_zero(self, params: Mapping[str, Any]) -> bool:
        """Whether the output right after ``attach`` is the base model's."""
        return True

    def checkpoints(self, params: Mapping[str, Any]) -> bool:
        """Whether a layer's forward may be run again in the backward pass (gradient checkpointing)."""
        return True

    def knob_of(self, params: Mapping[str, Any]) -> str | None:
        """The knob for these ``params``; only a method with several kinds inside needs to override it."""
        return self.knob if self.knob in params else None

    def at(self, params: Mapping[str, Any], value: int, knob: str | None = None) -> dict[str, Any]:
        """``params`` with the knob at ``value`` and the proportional fields moved along.

        ``knob`` is a recipe's own choice; nothing else moves with one that is not the method's.
        """
        own = self.knob_of(params)
        knob = knob or own
        assert knob is not None
        if knob != own:
            return {**params, knob: value}
        moved = {f: params[f] * value / params[knob] for f in self.proportional if f in params}
        return {**params, **moved, knob: value}


M = TypeVar("M", bound=type[Method])
_registered: dict[str, type[Method]] = {}


def register(name: str) -> Callable[[M], M]:
    """Class decorator that makes a method known under ``name`` in this process."""

    def add(cls: M) -> M:
        known = _registered.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise BenchError(
                f"Two methods want the name {name!r}: {known.__module__}.{known.__qualname__} and "
                f"{cls.__module__}.{cls.__qualname__}. Register one of them under another name."
            )
        _registered[name] = cls
        return cls

    return add


def _entry_points() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in found and found[entry.name].value != entry.value:
            raise BenchError(
                f"Two installed packages offer a method named {entry.name!r}: {found[entry.name].value} and "
                f"{entry.value}. Uninstall one of them, or name the class in the recipe as 'module:Class'."
            )
        found[entry.name] = entry
    return found


def names() -> dict[str, str]:
    """Every method in reach: name -> where it comes from ('module:Class')."""
    here = {name: f"{cls.__module__}:{cls.__qualname__}" for name, cls in _registered.items()}
    return {name: entry.value for name, entry in sorted(_entry_points().items())} | here


def load_plugin(module: str) -> None:
    """Import ``module`` so that its ``register`` calls take effect (``--plugin module``)."""
    try:
        importlib.import_module(module)
    except BenchError:
        raise
    except Exception as error:
        raise BenchError(
            f"The plug-in {module!r} cannot be imported: {type(error).__name__}: {error}. It must be a module on "
            f"PYTHONPATH or of an installed package."
        ) from error


def get(name: str) -> Method:
    """The method called ``name`` (or at ``module:Class``). Raises BenchError with the remedy."""
    cls: Any = _registered.get(name)
    if cls is None:
        offered = _entry_points()
        if name in offered:
            target = offered[name].value
        elif ":" in name:
            target = name
        else:
            raise UnknownNameError("method", name, names(), "Another package's method needs --plugin MODULE.")
        try:
            cls = EntryPoint(name, target, GROUP).load()
        except Exception as error:
            raise BenchError(
                f"The method {name!r} ({target}) cannot be loaded: {type(error).__name__}: {error}."
            ) from error
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise BenchError(f"The method {name!r} is {cls!r}, which is not a subclass of mosld_bench.Method.")
    return cls()
