"""The options of every command, and what they change in a study."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mosld_bench.cli.options import StudyOptions, expanded
from tests.cli.conftest import Command

STUDY = ["methods", "budget", "seeds", "settings", "tasks", "out-of-domain", "model", "limit", "steps", "name", "set"]
RUN = [
    "gpus", "gpus-per-trial", "cpus", "cpus-per-trial", "ray-address", "executor", "data-root", "model-root",
    "include-path", "plugin", "allow-code", "overwrite", "checkpoint-minutes", "time-limit", "memory-limit", "retries",
    "report-to",
]  # fmt: skip
OPTIONS = {
    "run": [*STUDY, *RUN, "save-adapters", "to", "dry-run", "quiet", "root"],
    "plan": [
        *STUDY, "model-root", "include-path", "plugin", "allow-code", "gpus", "gpu-memory", "gpus-per-trial", "tune",
        "factors", "mde", "probe", "data-root", "json", "root",
    ],
    "tune": [*STUDY, *RUN, "factors", "dry-run", "quiet", "root"],
    "profile": [
        "methods", "budget", "model", "set", "random-weights", "dtype", "device", "prompt-tokens", "new-tokens",
        "batch", "streams", "rounds", "json", "model-root", "include-path", "plugin", "allow-code", "root",
    ],
    "report": [*STUDY, "to", "quiet", "json", "include-path", "root"],
    "open": ["serve", "port", "include-path", "root"],
    "compare": [
        "study", "budget", "setting", "metric", "task", "margin", "items", "json", "include-path", "root",
    ],
    "merge": ["to", "keep", "dry-run", "root"],
    "score": [
        "adapter", "tasks", "limit", "name", "title", "load", "dtype", "data-root", "model-root", "include-path",
        "plugin", "allow-code", "root",
    ],
    "fetch": ["model", "to", "include-path", "root"],
    "doctor": ["data-root", "model-root", "seconds", "json", "root"],
    "methods ls": ["plugin", "json", "root"],
    "methods show": ["json", "root"],
    "methods check": ["model", "model-root", "json", "plugin", "allow-code", "root"],
    "methods new": ["to", "kind", "root"],
    "methods add": ["name", "root"],
    "tasks ls": ["include-path", "json", "root"],
    "tasks overlap": [
        "tasks", "out-of-domain", "limit", "set", "data-root", "include-path", "allow-code", "json", "root",
    ],
    "tasks show": ["items", "data-root", "include-path", "allow-code", "json", "root"],
    "tasks check": ["model", "model-root", "data-root", "include-path", "allow-code", "json", "root"],
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_the_help_of_a_command_lists_its_options(name: str, command: Command) -> None:
    code, text, _ = command(*name.split(), "--help")
    assert code == 0
    listed = re.findall(r"^│[ *]+--([a-z-]+)", text, re.M)
    assert sorted(listed) == sorted([*OPTIONS[name], "help"]), "in their groups"


def test_help_lists_the_commands(command: Command) -> None:
    listed = [
        re.findall(r"^│ ([a-z]+) ", command(*words, "--help").out, re.M) for words in ([], ["methods"], ["tasks"])
    ]
    assert listed[0] == [*(name for name in OPTIONS if " " not in name), "methods", "tasks"]
    grouped = [f"methods {name}" for name in listed[1]] + [f"tasks {name}" for name in listed[2]]
    assert grouped == [name for name in OPTIONS if " " in name]


def parsed(*words: str) -> StudyOptions:
    """The options as typer hands them to a command that asks for the group."""
    given: list[StudyOptions] = []

    def command(study: str = "embedded", *, study_options: StudyOptions) -> None:
        """A command with the options of a study."""
        given.append(study_options)

    app = typer.Typer()
    app.command()(expanded(command))
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return given[0]


#: Words of a command line -> what they change in a study.
CHANGES: list[tuple[list[str], dict[str, Any]]] = [
    ([], {}),
    (["--methods", "lora, mosld,"], {"recipes": ["lora", "mosld"]}),
    (["--budget", "250k,0.5%"], {"budgets": ["250k", "0.5%"]}),
    (["--seeds", "0, 1,-2"], {"seeds": [0, 1, -2]}),
    (["--settings", "single,mixture"], {"settings": ["single", "mixture"]}),
    (["--tasks", "copy"], {"in_domain": ["copy"]}),
    (["--out-of-domain", "other"], {"out_of_domain": ["other"]}),
    (["--out-of-domain", ""], {"out_of_domain": []}),
    (["--model", "some/model"], {"model": {"name": "some/model"}}),
    (["--limit", "0"], {"evaluate.limit": 0}),
    (["--steps", "7"], {"train.steps": 7}),
    (["--name", "mine"], {"name": "mine"}),
    (["--set", "train.batch_size=64"], {"train.batch_size": 64}),
    (["--set", "train.learning_rate=5.0e-3", "--set", "about=a=b"], {"train.learning_rate": 5e-3, "about": "a=b"}),
    (["--set", "general={task: openorca, items: [0, 4]}"], {"general": {"task": "openorca", "items": [0, 4]}}),
    (["--set", "evaluate.limit="], {"evaluate.limit": None}),
    (["--steps", "7", "--set", "train.steps=8"], {"train.steps": 8}),  # the more particular word is the last one
]


@pytest.mark.parametrize(("words", "changed"), CHANGES)
def test_an_option_changes_its_key_and_no_other(words: list[str], changed: dict[str, Any]) -> None:
    assert parsed(*words).overrides() == changed


@pytest.mark.parametrize("words", [words for words, _ in CHANGES])
def test_options_as_words_are_the_same_options(words: list[str]) -> None:
    options = parsed(*words)
    assert parsed(*options.words()) == options


def test_every_option_of_a_study_is_tried() -> None:
    tried = {words[0].removeprefix("--") for words, _ in CHANGES if words}
    assert tried == set(STUDY)
    assert len(fields(StudyOptions)) == len(STUDY)


def test_all_options_at_once_reach_the_study(command: Command) -> None:
    code, out, err = command(
        "plan", "embedded", "--json", "--methods", "lora", "--budget", "20k,40k", "--seeds", "5", "--settings",
        "single", "--tasks", "emb_tools", "--out-of-domain", "emb_people", "--limit", "9", "--steps", "3", "--set",
        "train.batch_size=2", "--set", "budget_tolerance=0.2",
    )  # fmt: skip
    assert code == 0, err
    plan = json.loads(out)
    study = plan["study"]
    assert (study["recipes"], study["budgets"], study["seeds"]) == (["lora"], ["20k", "40k"], [5])
    assert (study["settings"], study["in_domain"], study["out_of_domain"]) == (
        ["single"],
        ["emb_tools"],
        ["emb_people"],
    )
    assert (study["evaluate"]["limit"], study["train"]["steps"], study["train"]["batch_size"]) == (9, 3, 2)
    assert [(trial["recipe"], trial["budget"]) for trial in plan["trials"]] == [
        ("base", "native"), ("lora", "20k"), ("lora", "40k"),
    ]  # fmt: skip


#: A command line with a mistake -> what its sentence says.
WRONG = {
    "report --seeds 1,a": "--seeds takes whole numbers by comma, such as 0,1,2; given: '1,a'.",
    "plan --seeds --1": "--seeds takes whole numbers by comma, such as 0,1,2; given: '--1'.",
    "plan --seeds ²": "--seeds takes whole numbers by comma, such as 0,1,2; given: '²'.",
    "plan --set train.steps": "--set takes KEY=VALUE, such as train.batch_size=64; given: 'train.steps'.",
    "plan --set in_domain=[copy": "--set takes a VALUE in YAML; given: 'in_domain=[copy' (",
    "plan --seeds 0,12345678901234567890": "--seeds takes whole numbers by comma",
    "plan --set train.steps=*a": "--set takes a VALUE in YAML; given: 'train.steps=*a' (",
    "plan --set train.steps=!!set": "--set takes a VALUE in YAML; given: 'train.steps=!!set' (",
    "plan --set train.steps=.nan": "--set takes a VALUE in YAML; given: 'train.steps=.nan' (",
    "plan --set train..steps=3": "--set takes KEY=VALUE",
    "plan --set train.steps=3 --set train.steps=4": "--set gives train.steps twice",
    "plan --model ./gone": "There is no model folder ./gone.",
    "run --ray-address nowhere --methods lora": "--ray-address takes HOST:PORT",
    "report --methods mosldd": "no recipe named 'mosldd'. Did you mean 'mosld'",
    "plan --mde 0": "--mde takes points, above 0 and at most 100, such as 0.5; given: '0'.",
    "plan --mde -1": "--mde takes points, above 0 and at most 100, such as 0.5; given: '-1'.",
    "plan --mde 200": "--mde takes points, above 0 and at most 100, such as 0.5; given: '200'.",
    "plan --mde half": "--mde takes points, above 0 and at most 100, such as 0.5; given: 'half'.",
    "plan --mde nan": "--mde takes points, above 0 and at most 100, such as 0.5; given: 'nan'.",
    "plan paperr": "no study named 'paperr'. Did you mean 'paper'",
    "plan --plugin nope_nope": "The plug-in 'nope_nope' cannot be imported",
    "plan --root nowhere": "--root",
    "run --gpus -1": "--gpus takes 0 or more; given: -1.",
    "run --cpus 0": "--cpus takes 1 or more; given: 0.",
    "run --executor rai": "no value of --executor named 'rai'. Did you mean 'ray'",
    "run --overwrite sometimes": "no value of --overwrite named 'sometimes'. Known: always, never, only-missing",
    "profile --rounds 0": "--rounds takes 1 or more; given: 0.",
    "fetch smolm2": "no study named 'smolm2'. Did you mean 'smollm2'",
    "methods show mosldd": "no recipe named 'mosldd'. Did you mean 'mosld'",
    "methods check mosldd": "no recipe named 'mosldd'. Did you mean 'mosld'",
    "tasks overlap parameters": "The study 'parameters' trains nothing",
    "tasks show emb_tool": "no task named 'emb_tool'. Did you mean 'emb_tools'",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_input_is_one_sentence_and_exit_code_2(line: str, command: Command) -> None:
    code, out, err = command(*line.split())
    assert (code, out) == (2, "")
    assert err.startswith("mosld-bench: ")
    assert err.count("\n") == 1
    assert WRONG[line] in err


@pytest.mark.parametrize("line", ["plan --limit many", "plan --gpus 0", "plan --no-such-option", "walk"])
def test_what_cannot_be_parsed_is_exit_code_2(line: str, command: Command) -> None:
    code, out, err = command(*line.split())
    assert (code, out) == (2, "")
    assert "Traceback" not in err
