"""What every command has: examples that are understood, options in groups, JSON and nothing beside it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from mosld_bench import __version__
from mosld_bench.cli.again import next_command
from mosld_bench.cli.app import app
from mosld_bench.cli.examples import Example, epilog, examples_of
from mosld_bench.cli.options import COMPARED, OUTPUT, PLACES, RUNNING
from tests.cli.conftest import Command
from tests.conftest import REPOSITORY
from tests.whole.test_readmes import _table

#: The keys of what --json prints, at its top and within its lists, as mosld_bench/README.md has them.
PAGE = "mosld_bench/README.md"


def _commands(group: Any, words: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Every command of a group and of those below it, with the words that call it."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for name, command in group.commands.items():
        below = hasattr(command, "commands")
        found += _commands(command, (*words, name)) if below else [((*words, name), command)]
    return found


ROOT: Any = typer.main.get_command(app)
#: Those whose help is ours: that of `lm-eval` is lm-eval's.
COMMANDS = {words: command for words, command in _commands(ROOT) if words != ("lm-eval",)}
EXAMPLES = [(words, example) for words, command in COMMANDS.items() for example in examples_of(command.callback)]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_examples_at_the_end_of_its_help(words: tuple[str, ...], command: Command) -> None:
    done = command(*words, "--help")
    assert done.code == 0
    assert examples_of(COMMANDS[words].callback), "@examples of cli/examples.py"
    told = " ".join(done.out.split("Examples:")[1].split())
    for line, purpose in examples_of(COMMANDS[words].callback):
        assert " ".join(line.split()) in told
        assert " ".join(purpose.split()) in told


@pytest.mark.parametrize(("words", "example"), EXAMPLES, ids=[example.line for _, example in EXAMPLES])
def test_every_example_is_understood(words: tuple[str, ...], example: Example) -> None:
    """By the parser, to the last option; and the study, the recipes and the tasks that it names are there."""
    from mosld_bench.spec.recipe import SELECTORS, load_recipes
    from mosld_bench.spec.task_files import TaskFiles
    from mosld_bench.spec.workspace import Workspace

    program, *rest = shlex.split(example.line)
    assert program == "mosld-bench"
    assert tuple(rest[: len(words)]) == words
    context = COMMANDS[words].make_context(" ".join(words), rest[len(words) :])
    given, workspace = context.params, Workspace(REPOSITORY, REPOSITORY)
    recipes, tasks = load_recipes(workspace.methods), TaskFiles.scan((workspace.tasks,)).paths
    for name in (given.get("methods") or "").split(","):
        assert not name or name in {*recipes, *SELECTORS}
    assert given.get("study") is None or given["study"] in workspace.studies()
    if words[0] == "methods" and given.get("recipe"):
        assert given["recipe"] in recipes
    for name in [*(given.get("tasks") or [] if words == ("tasks", "check") else []), given.get("task")]:
        assert name is None or words[0] != "tasks" or name in tasks


def test_every_option_is_in_a_group() -> None:
    for words, command in COMMANDS.items():
        for option in command.params:
            if option.param_type_name == "option" and option.name != "help":
                assert option.rich_help_panel in {COMPARED, RUNNING, PLACES, OUTPUT}, (words, option.name)


def test_markup_in_an_example_is_text() -> None:
    def command() -> None:
        """Nothing."""

    assert epilog(command) is None
    command.__dict__["examples"] = (Example("mosld-bench run --set 'seeds=[0]'", "[bold]"),)
    assert epilog(command) == "Examples:\n\nmosld-bench run --set 'seeds=[0]'\n    \\[bold]"


def test_the_version_is_printed(command: Command) -> None:
    assert command("--version").out == f"mosld-bench {__version__}\n"


def _keys(name: str) -> set[str]:
    """The keys that the page tells of what a command prints with --json."""
    return set(re.findall(r"`([a-z_]+)`", _table(PAGE, "command with `--json`")[name,]))


@pytest.mark.parametrize(
    ("words", "lists"),
    [
        (("methods", "ls"), ("recipes", "methods")),
        (("tasks", "ls"), ("tasks",)),
        (("tasks", "show", "emb_foods"), ("items",)),
        (("tasks", "overlap", "embedded", "--limit", "20"), ("overlaps",)),
        (("doctor", "--seconds", "0"), ("findings",)),
    ],
)
def test_what_is_printed_for_programs_is_json_with_the_keys_of_the_page(
    words: tuple[str, ...], lists: tuple[str, ...], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command(*words, "--json")
    assert done.code == 0, done.err
    content = json.loads(done.out)
    name = " ".join(words[:2] if words[0] in {"methods", "tasks"} else words[:1])
    keys = set(content)
    for part in lists:
        assert content[part]
        keys |= set(content[part][0])
    assert keys <= _keys(name)


def test_a_recipe_and_a_plan_are_json(command: Command) -> None:
    recipe = json.loads(command("methods", "show", "mosld", "--json").out)
    assert (recipe["name"], recipe["method"]) == ("mosld", "mixture")
    plan = json.loads(command("plan", "embedded", "--methods", "lora", "--seeds", "0", "--json").out)
    assert set(plan) <= _keys("plan")
    assert [trial["recipe"] for trial in plan["trials"]] == ["base", "lora"]


def _completed(line: str, root: Path) -> list[str]:
    """What bash offers after ``line``."""
    words = line.split(" ")
    env = {
        **os.environ, "PYTHONPATH": str(REPOSITORY), "_MOSLD_BENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1),
    }  # fmt: skip
    code = (
        "import sys; from mosld_bench.cli import main\n"
        "sys.argv = ['mosld-bench']\n"
        "try:\n    main()\n"
        "finally:\n    assert not {'torch', 'transformers', 'ray', 'lm_eval'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True)
    assert "Error" not in done.stderr, done.stderr
    return done.stdout.split()


def test_a_shell_completes_names_without_torch(tmp_path: Path) -> None:
    for folder in ("methods", "tasks", "reports"):
        (tmp_path / folder).symlink_to(REPOSITORY / folder)
    assert _completed("mosld-bench run smoll", tmp_path) == ["smollm2", "smollm2-budget"]
    assert _completed("mosld-bench run --methods lora,hydral", tmp_path) == [
        "lora,hydralora",
        "lora,hydralora-no-dropout",
    ]
    assert _completed("mosld-bench tasks show emb_foo", tmp_path) == ["emb_foods", "emb_foods_turned"]


def test_without_a_terminal_and_without_colour_nothing_is_escaped() -> None:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for more in ({}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}):
        done = subprocess.run(
            [sys.executable, "-m", "mosld_bench", "methods", "ls"],
            cwd=REPOSITORY, env={**env, **more}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "\x1b" not in done.stdout + done.stderr


def _first_on_a_terminal(*words: str, **env: str) -> tuple[str, float, str]:
    """What a command shows first on a terminal, after how many seconds, and all that it shows."""
    code = (
        "import sys, atexit; from mosld_bench.cli import main\n"
        "assert 'rich' not in sys.modules, 'nothing is loaded before the first line'\n"
        f"sys.argv = ['mosld-bench', *{words!r}]\nmain()\n"
    )
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdin=end, stdout=end, stderr=end,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **env},
    )  # fmt: skip
    os.close(end)
    begun, first, seconds, shown = time.monotonic(), "", 0.0, b""
    while select.select([terminal], [], [], 120)[0]:
        try:
            part = os.read(terminal, 4096)
        except OSError:
            break
        if not shown:
            first, seconds = part.decode(), time.monotonic() - begun
        shown += part
    process.wait(60)
    os.close(terminal)
    return first, seconds, shown.decode()


def test_a_slow_command_says_at_once_that_it_starts() -> None:
    """Before it has loaded its options even; and what it said is wiped."""
    first, _, shown = _first_on_a_terminal("run", "no-such-study", NO_COLOR="1")
    assert first.startswith("mosld-bench run: starting")
    assert "\r\x1b[2K" in shown
    assert "There is no study named 'no-such-study'" in shown
    assert not re.search(r"\x1b\[[0-9;]*m", shown), "no colours"


def test_a_command_that_goes_on_is_the_one_that_was_typed() -> None:
    path = "/venv/bin/mosld-bench"
    assert next_command([path, "run", "a study", "--set", "seeds=[0]"]) == "mosld-bench run 'a study' --set 'seeds=[0]'"
    assert next_command([path, "run", "--overwrite", "never", "--gpus", "1"]) == "mosld-bench run --gpus 1"
    assert next_command([path, "run", "--overwrite=never"]) == "mosld-bench run"
    assert next_command([path, "run", "--overwrite", "always"]) == "mosld-bench run --overwrite always"
    program, *rest = next_command(["/src/mosld_bench/__main__.py", "tune", "x"]).split()
    assert (program, rest) == (Path(sys.executable).name, ["-m", "mosld_bench", "tune", "x"])


def test_doctor_ends_by_whether_runs_are_possible(command: Command) -> None:
    good = command("doctor", "--seconds", "0")
    assert good.code == 0, good.out
    assert "study embedded: not estimated: 'mosld-bench plan embedded' does" in good.out
    bad = command("doctor", "--seconds", "0", "--data-root", "nowhere")
    assert bad.code == 1
    assert "No run is possible before that is mended: data root." in bad.out
    assert "study " not in bad.out, "of no use then"


def test_a_file_that_cannot_be_read_is_listed_and_stops_no_other(tiny: Path, command: Command) -> None:
    (tiny / "methods" / "mine.yaml").write_text("title: [\n")
    (tiny / "tasks" / "mine.yaml").write_text("task: mine\ninclude: gone.yaml\n")
    (tiny / "tasks" / "torn.yaml").write_text("task: torn\n a: [\n")
    root = ("--root", str(tiny))
    listed = command("methods", "ls", *root)
    assert (listed.code, "not a recipe: " in listed.out, "mine.yaml is not YAML" in listed.out) == (0, True, True)
    listed = command("tasks", "ls", *root)
    assert (listed.code, listed.out.count("not a task: ")) == (0, 2)
    unreadable = json.loads(command("tasks", "ls", "--json", *root).out)["unreadable"]
    assert {file["name"] for file in unreadable} == {"mine", "torn"}
    plan = command("plan", "tiny", *root)
    assert plan.code == 0, plan.err
    assert plan.out.count("Not read, and not asked for: ") == 2
    for option, name in (("--methods", "mine"), ("--tasks", "torn"), ("--tasks", "mine")):
        refused = command("plan", "tiny", option, name, *root)
        assert refused.code == 2
        assert f"{name}.yaml" in refused.err
