"""The Jinja in which lm-eval's templates run: a sandbox, with bounds on what one rendering takes.

A template of a task file reaches no Python, takes at most `SECONDS` of a core, and makes no text or list of more than
`MAX_SIZE` characters on its way. What it renders within these bounds is what lm-eval's own environment renders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from typing import Any

from jinja2 import BaseLoader, StrictUndefined, Template, nodes
from jinja2.environment import TemplateExpression
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment

from mosld_bench.time_limit import cpu_limit

#: CPU time of one rendering.
SECONDS = 5.0

#: Characters of a text, and of all texts in a list, that a template makes; an item of data may have more.
MAX_SIZE = 50_000_000

_MAX_WIDTH = 100_000  # columns that a text is filled up to
_MAX_BITS = 100_000  # of a whole number
_PADDED = frozenset(
    {"center", "ljust", "rjust", "zfill", "expandtabs", "indent", "batch", "slice", "generate_lorem_ipsum", "lipsum"}
)
_WIDTH = re.compile(r"%[^a-zA-Z%]*(\d{6,}|\*)|\{[^}]*(\d{6,}|\{)")


class TooLargeError(ValueError):
    """A template that makes more than any prompt has."""

    def __init__(self) -> None:
        super().__init__(f"it makes a text of more than {MAX_SIZE:,} characters, or a number of as many digits")


class _Template(Template):
    def render(self, *args: Any, **kwargs: Any) -> str:
        with cpu_limit(SECONDS):
            return super().render(*args, **kwargs)


class Sandbox(SandboxedEnvironment):
    """Renders as lm-eval's own environment does, which is none of a sandbox, within the bounds of this module."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    template_class = _Template

    def __init__(self, filters: Mapping[str, Callable[..., Any]]) -> None:
        """``filters``: those of lm-eval beside Jinja's own."""
        super().__init__(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True, finalize=bounded)
        self.filters = {name: _bounded_filter(name, one) for name, one in {**self.filters, **filters}.items()}
        self.from_string = lru_cache(maxsize=1024)(super().from_string)  # type: ignore[method-assign, assignment]

    #: What the operands of ``~`` go through.
    bounded: Callable[[Any], Any]

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operators that can make much of little."""
        whole = isinstance(left, int) and isinstance(right, int)
        if operator == "**" and whole and left.bit_length() * right > _MAX_BITS:
            raise TooLargeError
        if operator == "*" and not whole:
            times, value = (left, right) if isinstance(left, int) else (right, left)
            if isinstance(times, int) and isinstance(value, str | list | tuple) and _size(value) * times > MAX_SIZE:
                raise TooLargeError
        if operator == "%" and isinstance(left, str):
            _check_widths(left)
        return bounded(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """A call of a function or method."""
        name, wrapped = getattr(__obj, "__name__", ""), getattr(__obj, "__wrapped__", None)  # as str.format is
        owner = getattr(__obj if wrapped is None else wrapped, "__self__", None)
        _check_call(name, owner, [*args, *kwargs.values()])
        return bounded(super().call(__context, __obj, *args, **kwargs))

    def _generate(self, source: nodes.Template, name: Any, filename: Any, defer_init: bool = False) -> str:
        for joined in source.find_all(nodes.Concat):
            joined.nodes = [
                nodes.Call(nodes.EnvironmentAttribute("bounded"), [operand], [], None, None, lineno=joined.lineno)
                for operand in joined.nodes
            ]
        return super()._generate(source, name, filename, defer_init)

    def compile_expression(self, source: str, undefined_to_none: bool = True) -> TemplateExpression:
        """An expression, whose value is taken under the same limit of time."""
        expression = super().compile_expression(source, undefined_to_none)
        return _Limited(expression._template, expression._undefined_to_none)


class _Limited(TemplateExpression):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with cpu_limit(SECONDS):
            return super().__call__(*args, **kwargs)


def bounded(value: Any) -> Any:
    """``value``. Raises TooLargeError where it is a text, number or list beyond the bounds."""
    if isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            raise TooLargeError
    elif isinstance(value, str | list | tuple | dict) and _size(value) > MAX_SIZE:
        raise TooLargeError
    return value


Sandbox.bounded = staticmethod(bounded)


def _size(value: Any) -> int:
    """Characters of all texts in a value, each element counting one more; no further than `MAX_SIZE`."""
    if isinstance(value, str):
        return len(value)
    total, waiting = 0, [value]
    while waiting and total <= MAX_SIZE:
        inner = waiting.pop()
        if isinstance(inner, str):
            total += len(inner)
        elif isinstance(inner, list | tuple):
            total += len(inner)
            waiting += inner
        elif isinstance(inner, dict):
            total += len(inner)
            waiting += inner.values()
    return total


def _check_widths(text: str) -> None:
    if _WIDTH.search(text):
        raise TooLargeError


def _check_call(name: str, owner: Any, args: list[Any]) -> None:
    """Raises TooLargeError for a call that would make much of what it is given."""
    if name in _PADDED and any(isinstance(arg, int) and abs(arg) > _MAX_WIDTH for arg in args):
        raise TooLargeError
    if name in {"format", "format_map"} and isinstance(owner, str):
        _check_widths(owner)
    if name == "replace" and isinstance(owner, str) and len(args) > 1:
        old, new = str(args[0]), str(args[1])
        if len(owner) + owner.count(old) * len(new) > MAX_SIZE:
            raise TooLargeError
    if name == "join" and args and _size([owner]) * len(args[0] if hasattr(args[0], "__len__") else ()) > MAX_SIZE:
        raise TooLargeError
    for arg in args:
        bounded(arg)


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is held to the same bounds; which of Jinja's objects it is passed stays as it is."""

    @wraps(function)
    def held(*args: Any, **kwargs: Any) -> Any:
        given = [arg for arg in args if not isinstance(arg, Context | SandboxedEnvironment)]
        owner, rest = (given[0], given[1:]) if given else (None, [])
        if name == "format":
            _check_widths(str(owner))
        _check_call(name, owner, [*rest, *kwargs.values()])
        return bounded(function(*args, **kwargs))

    return held
