"""Task definitions and data that nobody should write: looked at by `tasks check`, as by a run before it starts."""

from __future__ import annotations

import json

import pytest

from tests.hostile.cases import NO_SETTINGS, ROWS, TASK, Case, Content, folder, loop, pipe, replaced, rows, table
from tests.hostile.conftest import Refused

CHECK = ("tasks", "check", "toy")
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}"
BRANCHES = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
DOUBLES = (
    "{% set ns = namespace(x=question) %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}"
)
METRICS = "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]"


def _task(name: str, text: str) -> Case:
    return Case(f"task: {name}", CHECK, {"tasks/toy.yaml": text})


def _with(line: str) -> Case:
    return _task(line[:50], TASK + line + "\n")


def _in(old: str, new: str) -> Case:
    return _task(new[:60], replaced(TASK, old, new))


def _prompt(template: str) -> Case:
    return _in('"{{question}}?"', json.dumps(template))


WRITTEN = (
    replaced(
        replaced(TASK, "output_type: multiple_choice", "output_type: generate_until"), "doc_to_choice: options\n", ""
    )
    .replace(METRICS, "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]")
    .replace("doc_to_target: answer", "doc_to_target: '{{options[answer]}}'")
)

DEFINITIONS = [
    *(_task(name, content) for name, content in NO_SETTINGS.items() if isinstance(content, str) and content),
    *(
        Case(f"task: {name}", CHECK, {"tasks/toy.yaml": content})
        for name, content in NO_SETTINGS.items()
        if not isinstance(content, str)
    ),
    *map(
        _with,
        (
            "description: 5", "description: {a: b}", f"description: '{ENDLESS}'", "num_fewshot: -1", "num_fewshot: a",
            "num_fewshot: 1000000000", "target_delimiter: 5", "repeats: -5", "repeats: 1000000000",
            "process_docs: text",
            "process_results: text", "custom_dataset: text", "class: text", "filter_list: 5", "generation_kwargs: 5",
            "foo: 1", "fewshot_config: 5", "include: .", "include: toy.yaml", "include: /dev/zero",
        ),
    ),
    *map(
        _prompt,
        (
            ENDLESS, BRANCHES, DOUBLES, "{{ 'x' * 10000000000 }}", "{{ ['x'] * 10000000000 }}", "{{ 9 ** 999999999 }}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ '%1000000000d' % 1 }}",
            "{{ question.center(5000000000) }}",
            "{{ question | center(5000000000) }}", "{{ '{:>9999999999}'.format(1) }}",
            "{{ question.replace('', 'x' * 40000000) }}",
            "{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!' | regex_replace('(a+)+$', '') }}", "{{ question ",
            "{{ nothing }}",
            "{% include '/etc/passwd' %}", "{{ lipsum(n=1000000) }}", "{% for i in range(10 ** 12) %}x{% endfor %}",
            "{{ question.__class__.__mro__[1].__subclasses__() }}",
            "{{ cycler.__init__.__globals__.os.system('touch it-ran') }}",
            "{{ lipsum.__globals__['os'].popen('touch it-ran').read() }}",
        ),
    ),
    *(_in('"{{question}}?"', value) for value in ("{a: b}", "null")),
    _in("doc_to_choice: options\n", ""),
    _task("a data set of a long name", replaced(TASK, "dataset_path: json", f"dataset_path: {'x' * 5000}/y")),
    _task("data files of a long name", replaced(TASK, "toy.jsonl", "x" * 5000)),
    _task("a folder of data of a long name", replaced(TASK, "data_files:", f"data_dir: {'x' * 5000}, other:")),
    _task("no text and no type", "task: toy\ndataset_path: json\ndoc_to_target: answer\n"),
    *(_in("doc_to_choice: options", f"doc_to_choice: {value}") for value in ("5", "[]", "{a: b}", "question", "no")),
    _in("doc_to_target: answer\n", ""),
    *(_in("doc_to_target: answer", f"doc_to_target: {value}") for value in ("nothing", "99", "-1", "'{{ 7 }}'")),
    *(_in("output_type: multiple_choice", f"output_type: {value}") for value in ("nothing", "[a]")),
    *(
        _in(METRICS, f"metric_list: {value}")
        for value in (
            "[5]", "[{metric: nothing}]", "[{}]", "[{metric: acc, aggregation: nothing}]", "[{metric: ./evil}]",
        )
    ),
    *(_in("training_split: train", f"training_split: {value}") for value in ("nothing", "5")),
    _in("test_split: test\n", ""),
    *(
        _in("dataset_path: json", f"dataset_path: {value}")
        for value in ("../../etc", "evil.py", "null", "pandas", "webdataset")
    ),
    *(
        _in("{train: toy.jsonl, test: toy.jsonl}", value)
        for value in (
            "{train: /etc/passwd, test: /etc/passwd}", "5", "{}", "{train: nothing.jsonl, test: nothing.jsonl}",
        )
    ),
    _in("dataset_kwargs: {", "dataset_kwargs: {trust_remote_code: true, "),
    *(_in("task: toy", f"task: {value}") for value in ("[toy]", "null", '"\\e[31m"', "t" * 3_000)),
    *(
        _task(f"written, {line}", WRITTEN + line + "\n")
        for line in (
            "generation_kwargs: {until: 5}",
            "generation_kwargs: {until: [a, 5]}",
            "generation_kwargs: {max_gen_toks: -1}",
            "generation_kwargs: {max_gen_toks: many}",
            "generation_kwargs: {max_gen_toks: 1000000000000}",
            "generation_kwargs: {do_sample: true, temperature: hot}",
            "filter_list: [{name: x, filter: [{function: regex, regex_pattern: '((('}]}]",
            "filter_list: [{name: x, filter: [{function: regex, regex_pattern: '(\\w+\\s?)+#'}]}]",
            "filter_list: [{name: x, filter: 5}]",
            "filter_list: [{name: x, filter: [{function: nothing}]}]",
        )
    ),
]  # fmt: skip

DATA: dict[str, Content] = {
    "options null": rows({"options": None}),
    "options empty": rows({"options": []}),
    "options numbers": rows({"options": [1, 2, 3]}),
    "options nothing": rows({"options": [None, None]}),
    "options a text": rows({"options": "abc"}),
    "options blank": rows({"options": ["", "", ""]}),
    "answer out of range": rows({"answer": 99}),
    "answer below none": rows({"answer": -1}),
    "answer null": rows({"answer": None}),
    "answer between two": rows({"answer": 0.5}),
    "answer a list": rows({"answer": [0]}),
    "question null": rows({"question": None}),
    "empty": "",
    "no JSON": "hello\n",
    "half a row": rows()[:-10],
    "numbers": "1\n2\n",
    "latin-1": rows().encode() + b'{"question": "\xe9"}\n',
    "utf-16": rows().encode("utf-16"),
    "bytes": bytes(range(256)) * 12,
    "digits": '{"question": "a", "options": ["a", "b"], "answer": ' + "9" * 5_000 + "}\n",
    "too deep": '{"question": ' + "[" * 20_000 + "]" * 20_000 + "}\n",
    "a broken archive": b"\x1f\x8b\x08\x00 not one",
    "a folder": folder,
    "a pipe": pipe,
    "a loop": loop,
    "of other columns": json.dumps({"a": 1}) + "\n",
    "of one row": json.dumps(ROWS[0] | {"answer": 7}) + "\n",
}


@pytest.mark.parametrize("case", table(*DEFINITIONS))
def test_definitions_are_refused(case: Case, refused: Refused) -> None:
    refused(case)


@pytest.mark.parametrize(
    "case", table(*(Case(f"data: {name}", CHECK, {"tasks/toy.jsonl": data}) for name, data in DATA.items()))
)
def test_data_are_refused(case: Case, refused: Refused) -> None:
    refused(case)
