"""The sandbox for templates: what it renders is what lm-eval's own environment renders, and what it refuses ends."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2 import BaseLoader, Environment, StrictUndefined
from jinja2.exceptions import SecurityError

from mosld_bench.compat.templates import MAX_SIZE, Sandbox, TooLargeError
from mosld_bench.inputs.tasks import TaskLoader
from tests.compat.assumption import assumed
from tests.conftest import REPOSITORY

DOC: dict[str, Any] = {
    "question": "Who?", "options": ["a", "b"], "answer": 1, "none": None,
    "nested": {"text": ["x", "y"], "label": ["A", "B"]},
}  # fmt: skip
TEMPLATES = [
    "{{question}}?", "{{options[answer]}}", "{% for o in options %}{{loop.index}}. {{o}}\n{% endfor %}",
    "{{ 7 * 6 }}",
    "{{ '-' * 20 }}", "{{ question ~ ' ' ~ answer ~ none }}", "{{ options | join(', ') }}",
    "{{ nested.text | length }}",
    "{{ nested.label.index('B') }}", "{{ '%s of %d' % (question, 3) }}", "{{ '{:>5}|{}'.format(answer, question) }}",
    "{{ question.replace('W', 'w').strip() }}", "{{ question | upper | replace('W', 'V') }}", "{{ 2 ** 10 }}",
    "{% set ns = namespace(t='') %}{% for o in options %}{% set ns.t = ns.t ~ o %}{% endfor %}{{ ns.t }}",
    "{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(question) }}", "{{ options + ['c'] }}",
    "{{ 'a' if answer else 'b' }}\n",
    "{{ question | regex_replace('[a-z]+', '-') }}", "{{ range(3) | list }}", "{{ options | tojson }}", "{{ none }}",
    "{{ nested['text'][0].center(7) }}", "{{ [1, 2] * 2 }}", "{{ dict(a=1).items() | list }}", "{# a remark #}x",
]  # fmt: skip


def _replace(string: str, pattern: str, repl: str, count: int = 0) -> str:
    import re

    return re.sub(pattern, repl, string, count=count)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox({"regex_replace": _replace})


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_is_harmless_is_rendered_as_before(template: str, sandbox: Sandbox) -> None:
    before = Environment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
    before.filters["regex_replace"] = _replace
    assert sandbox.from_string(template).render(**DOC) == before.from_string(template).render(**DOC)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 10000000000 }}", "{{ 10000000000 * ['x'] }}", "{{ 9 ** 999999999 }}", "{{ '%1000000000d' % 1 }}",
        "{{ question.center(5000000000) }}", "{{ question | center(5000000000) }}", "{{ '{:>9999999999}'.format(1) }}",
        "{{ question.replace('', 'x' * 40000000) }}", "{{ '{:{}}'.format(1, 9999999999) }}",
        "{% set n = namespace(x=question) %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x=question) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=7) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{{ lipsum(n=1000000) }}", "{{ (['x' * 1000000] * 1000) | join }}",
    ],
)  # fmt: skip
def test_what_makes_much_of_little_is_refused(template: str, sandbox: Sandbox) -> None:
    with pytest.raises(TooLargeError, match=f"{MAX_SIZE:,}"):
        sandbox.from_string(template).render(**DOC)


@pytest.mark.parametrize(
    "template",
    [
        "{{ question.__class__.__mro__ }}", "{{ cycler.__init__.__globals__ }}", "{{ lipsum.__globals__['os'] }}",
        "{{ question['__class__'] }}", "{{ (question | attr('__class__')).__mro__ }}",
        "{{ '{0.__class__.__mro__}'.format(question) }}",
    ],
)  # fmt: skip
def test_a_template_reaches_no_python(template: str, sandbox: Sandbox) -> None:
    with pytest.raises(SecurityError):
        sandbox.from_string(template).render(**DOC)


def test_what_is_used_of_jinja(sandbox: Sandbox) -> None:
    with assumed("jinja2", "Environment._generate may be overridden; TemplateExpression has _template"):
        expression = sandbox.compile_expression("options[answer] ~ question", undefined_to_none=False)
        assert expression(**DOC) == "bWho?"


def test_the_tasks_of_the_repository_are_rendered_in_it() -> None:
    from lm_eval import utils

    TaskLoader([REPOSITORY / "tasks"])
    assert isinstance(utils.env, Sandbox)
