"""Names and patterns in a recipe's settings that match no module of the model: refused, since PEFT passes over them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from mosld_bench.compat.peft import adapted_modules, pattern_of, saved_modules
from mosld_bench.errors import BenchError
from mosld_bench.format import listed
from mosld_bench.time_limit import TookTooLongError, cpu_limit

if TYPE_CHECKING:
    from torch import nn

#: Fields with names of modules that get an adapter.
_TARGETS = ("target_modules", "feedforward_modules", "ffn_modules")

#: Classes of linear layers, that of GPT-2 among them.
_LINEAR = frozenset({"Linear", "Conv1D"})
#: Fields of which a single text is a regular expression.
_EXPRESSIONS = (*_TARGETS, "exclude_modules", "target_parameters", "layers_pattern")

#: What an expression needs to take long: two repetitions, one of which may be within the other.
_REPEATED = re.compile(r"[*+}].*[*+}]", re.DOTALL)

_SECONDS = 3.0  # of a core, for all names

#: PEFT types whose patterns need something and a dot before them.
_INSIDE = ("FOURIERFT", "C3A")


#: Whether the model has some of its layers alone.
_SOME_LAYERS: ContextVar[bool] = ContextVar("some_layers", default=False)


@contextmanager
def some_layers() -> Iterator[None]:
    """Inside the block no name is refused that matches nothing: it may be of a layer that the model is here without."""
    token = _SOME_LAYERS.set(True)
    try:
        yield
    finally:
        _SOME_LAYERS.reset(token)


def refuse_unmatched(model: nn.Module, options: Mapping[str, Any], modules: Sequence[str], peft_type: str = "") -> None:
    """Raise BenchError for a name or a pattern in ``options`` that nothing in ``model`` comes of.

    ``model``: with the adapter; ``options``: the fields that the recipe writes; ``modules``: the names of the base
    model's modules before the adapter. Looked at are lists of names (``target_modules``, ``exclude_modules``,
    ``modules_to_save``, ...), every field that ends in ``_pattern``, and numbers of layers (``layers_to_transform``).
    """
    adapted = adapted_modules(model)
    if not adapted or _SOME_LAYERS.get():  # none: virtual tokens, or a method that keeps its parameters elsewhere
        return
    for field in _TARGETS:
        for name in _names(options.get(field)):
            _demand(any(_ends(module, name) for module in adapted), field, name, "matches no module", adapted)
    for name in _names(options.get("modules_to_save")):
        whole = any(module.endswith(name) for module in saved_modules(model))
        _demand(whole, "modules_to_save", name, "matches no module", modules)
    for name in _names(options.get("exclude_modules")):
        spared = [module for module in modules if _ends(module, name) and _targets(options, module)]
        _demand(bool(spared), "exclude_modules", name, "leaves out no module that is a target", adapted)
    for number in _numbers(options.get("layers_to_transform")):
        _demand(any(f".{number}." in module for module in adapted), "layers_to_transform", number,
                "is no layer of the model with a target", adapted)  # fmt: skip
    for name in _names(options.get("layers_pattern")):
        _demand(any(re.search(rf"(^|\.){name}\.\d+\.", module) for module in adapted), "layers_pattern", name,
                "is the name of no list of layers with a target", adapted)  # fmt: skip
    for field, patterns in options.items():
        if field.endswith("_pattern") and isinstance(patterns, Mapping):
            _refuse_idle(field, patterns, adapted, inside=peft_type in _INSIDE)


def linear_layers_hint(model: nn.Module, options: Mapping[str, Any]) -> str:
    """Where none of the names in ``options`` is that of a module of ``model``: how its linear layers are called, a
    sentence with a space before it; else ''.
    """
    wanted = [name for field in _TARGETS for name in _names(options.get(field))]
    modules = [(name, type(module).__name__) for name, module in model.named_modules()]
    if not wanted or any(_ends(module, name) for module, _ in modules for name in wanted):
        return ""
    inside = [name.rsplit(".", 1)[-1] for name, kind in modules if kind in _LINEAR and re.search(r"\.\d+\.", name)]
    called = listed(list(dict.fromkeys(inside)), most=8)
    return (
        f" The linear layers of this model are called {called}; name them in the params of a recipe." if inside else ""
    )


def refuse_endless(model: nn.Module, options: Mapping[str, Any], where: str = "the recipe's params") -> None:
    """Raise BenchError for a regular expression in ``options`` that does not come to an end on the names of modules.

    ``where`` they are: a recipe's parameters, or what an adapter's folder says of it.
    Looked at are the fields whose texts PEFT takes for one. What does not compile is for PEFT to refuse.
    """
    patterns = [(field, options[field]) for field in _EXPRESSIONS if isinstance(options.get(field), str)]
    for field, value in options.items():
        if field.endswith("_pattern"):
            keys = value if isinstance(value, Mapping) else [value] if isinstance(value, str) else []
            patterns += [(field, str(key)) for key in keys]
    if not any(_REPEATED.search(pattern) for _, pattern in patterns):
        return
    names = [name for name, _ in model.named_modules()]
    for field, pattern in patterns:
        with suppress(re.error, RecursionError, OverflowError):
            expression = re.compile(rf"(.*\.)?({pattern})$")
            try:
                with cpu_limit(_SECONDS):
                    for name in names:
                        expression.match(name)
            except TookTooLongError:
                raise BenchError(
                    f"In {where}, {pattern[:80]!r} of {field} is a regular expression that does not come to an end "
                    f"within {_SECONDS:g} s. Write it without a repetition in a repetition, or name modules."
                ) from None


def _refuse_idle(field: str, patterns: Mapping[str, Any], adapted: Sequence[str], *, inside: bool) -> None:
    """Raise BenchError for a key of ``patterns`` that decides for no module, since none or another one matches."""
    deciding = {pattern_of(patterns, module, inside=inside) for module in adapted}
    for key in patterns:
        if key in deciding:
            continue
        reached = [module for module in adapted if pattern_of([key], module, inside=inside) is not None]
        before = {pattern_of(patterns, module, inside=inside) for module in reached}
        why = f"matches only modules that {' and '.join(map(repr, sorted(map(str, before))))} before it decides for"
        _demand(False, field, key, why if reached else "matches no module with an adapter", adapted)


def _demand(holds: bool, field: str, value: object, finding: str, modules: Sequence[str]) -> None:
    """Raise BenchError with what was found, unless it ``holds``."""
    if not holds:
        shown = ", ".join(modules[:4]) + (f" and {len(modules) - 4} more" if len(modules) > 4 else "")
        raise BenchError(
            f"In the recipe's params, {value!r} of {field} {finding}, so that it would do nothing. Modules are named "
            f"as in {shown}."
        )


def _targets(options: Mapping[str, Any], module: str) -> bool:
    """Whether a module would be a target, as far as the recipe names targets."""
    wanted = options.get("target_modules")
    if isinstance(wanted, str):
        return wanted == "all-linear" or re.fullmatch(wanted, module) is not None
    return wanted is None or any(_ends(module, name) for name in wanted)


def _ends(module: str, name: str) -> bool:
    """Whether ``name`` is the module's, or the end of it from a dot on: what a name in a list means to PEFT."""
    return f".{module}".endswith(f".{name}")


def _names(value: Any) -> list[str]:
    """The entries of a list of names; none of a single text, which is a regular expression or a word for all."""
    return [str(name) for name in value] if isinstance(value, (list, tuple, set)) else []


def _numbers(value: Any) -> list[int]:
    if value is None:
        return []
    return [int(number) for number in value] if isinstance(value, (list, tuple, set)) else [int(value)]
