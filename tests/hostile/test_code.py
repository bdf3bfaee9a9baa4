"""Code of others: what a workspace brings along runs only where --allow-code asks for it, and hides no library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosld_bench.cli import main
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.methods import registry
from mosld_bench.spec import foreign_code
from mosld_bench.spec.foreign_code import ForeignCodeError
from mosld_bench.spec.task_files import TaskFiles
from tests.conftest import REPOSITORY, bench
from tests.hostile.cases import TASK, Case, replaced
from tests.hostile.conftest import MARK, Refused

MARKS = f"from pathlib import Path\nPath({MARK!r}).touch()\n"
METHOD = (
    MARKS
    + "from mosld_bench import Method\nclass M(Method):\n    def attach(self, model, params):\n        return model\n"
)
HELPER = MARKS + "def text(doc):\n    return doc['question']\ndef same(docs):\n    return docs\n"
OF_TASK = {
    "tasks/helper.py": HELPER,
    "tasks/toy.yaml": replaced(TASK, '"{{question}}?"', "!function helper.text"),
}
OF_RECIPE = {
    "hostile_method.py": METHOD,
    "methods/bad.yaml": 'title: Bad\nmethod: "hostile_method:M"\n',
}

CASES = [
    Case("a task that is looked at", ("tasks", "check", "toy"), OF_TASK),
    Case("a task that is shown", ("tasks", "show", "toy"), OF_TASK),
    Case("a task that is searched", ("tasks", "overlap", "s"), OF_TASK),
    Case("a task that is run", ("run", "s", "--executor", "inline"), OF_TASK),
    Case("a task that is scored", ("score", "embedded", "--tasks", "toy"), OF_TASK),
    Case(
        "documents of a task",
        ("tasks", "check", "toy"),
        {"tasks/helper.py": HELPER, "tasks/toy.yaml": TASK + "process_docs: !function helper.same\n"},
    ),
    Case(
        "data of a task",
        ("tasks", "check", "toy"),
        {"tasks/helper.py": HELPER, "tasks/toy.yaml": TASK + "custom_dataset: !function helper.same\n"},
    ),
    Case(
        "a class of a task",
        ("tasks", "check", "toy"),
        {"tasks/helper.py": HELPER, "tasks/toy.yaml": "task: toy\nclass: !function helper.text\n"},
    ),
    Case(
        "a function of the system",
        ("tasks", "check", "toy"),
        {"tasks/toy.yaml": TASK + "process_docs: !function os.system\n"},
    ),
    Case(
        "a task that includes it",
        ("tasks", "check", "toy"),
        {"tasks/helper.py": HELPER, "tasks/_base": "doc_to_text: !function helper.text\n",
         "tasks/toy.yaml": replaced("include: _base\n" + TASK, 'doc_to_text: "{{question}}?"\n', "")},
    ),
    Case("a recipe that is planned", ("plan", "s", "--methods", "bad"), OF_RECIPE),
    Case("a recipe that is run", ("run", "s", "--methods", "bad", "--executor", "inline"), OF_RECIPE),
    Case("a recipe that is checked", ("methods", "check", "bad"), OF_RECIPE),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_code_needs_to_be_allowed(case: Case, refused: Refused) -> None:
    assert "--allow-code" in refused(case)


@pytest.fixture
def own_modules() -> Iterator[None]:
    """Modules that the test imports are gone after it."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if "hostile_method" in name or name.endswith("tasks/helper"):
            del sys.modules[name]


def _command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mosld-bench", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    code = stop.value.code
    return code if isinstance(code, int) else 1 if code else 0


def test_what_is_allowed_runs_and_a_plan_tells(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_modules: None
) -> None:
    Case("", (), OF_TASK).prepare(workspace)
    for words in (["plan", "s"], ["tasks", "ls"], ["methods", "ls"]):
        assert _command(monkeypatch, *words) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert ("for which `run` needs --allow-code" in said and "helper.py (!function helper.text)" in said) == (
            words[0] == "plan"
        )
        assert not (workspace / MARK).exists()
    assert _command(monkeypatch, "tasks", "check", "toy", "--allow-code") == 0
    assert (workspace / MARK).exists()
    assert not foreign_code.is_allowed(), "what a command allows ends with it"


def test_a_method_of_a_recipe_is_allowed_by_name(
    own_modules: None, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Case("", (), OF_RECIPE).prepare(workspace)
    monkeypatch.syspath_prepend(workspace)
    with pytest.raises(ForeignCodeError, match="hostile_method"):
        registry.get("hostile_method:M")
    with foreign_code.allowed():
        assert type(registry.get("hostile_method:M")).__name__ == "M"
    assert registry.get("hostile_method:M"), "what is imported already runs nothing anew"


def test_a_copy_of_this_packages_code_is_no_foreign_code(tmp_path: Path) -> None:
    for name in ("dialogsum.py", "dialogsum.yaml"):
        (tmp_path / name).write_bytes((REPOSITORY / "tasks" / name).read_bytes())
    assert TaskFiles.scan((tmp_path,)).foreign_code("dialogsum") == []
    (tmp_path / "dialogsum.py").write_text((tmp_path / "dialogsum.py").read_text() + "\n")
    assert TaskFiles.scan((tmp_path,)).foreign_code("dialogsum") == [
        f"{tmp_path / 'dialogsum.py'} (!function dialogsum.process_results)"
    ]
    assert not TaskLoader([REPOSITORY / "tasks"]).files.foreign_code("dialogsum")


@pytest.mark.parametrize("name", ["peft", "pydantic", "json", "difflib", "yaml", "typer"])
def test_a_module_in_the_current_folder_hides_no_library(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text(MARKS)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    words = ["-m", "mosld_bench", "--version"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / MARK).exists()


def test_the_current_folder_is_searched_for_a_plug_in_alone_and_last(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, own_modules: None
) -> None:
    from mosld_bench.cli.options import load_plugins

    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in {"", str(workspace)}])
    before = list(sys.path)
    load_plugins(None)
    assert sys.path == before
    (workspace / "hostile_method.py").write_text(METHOD)
    load_plugins(["hostile_method"])
    assert sys.path == [*before, str(workspace)]
    assert registry.get("hostile_method:M"), "the module was asked for by name"


#: What a method's contract tries, and what goes to a process of our own over a pipe.
PICKLED = {"contract.py", "background.py"}


def test_no_pickle_is_read() -> None:
    read = ("pickle.load", "torch.load(", "allow_pickle=True", "trust_remote_code=True", "weights_only=False", "joblib")
    for file in (REPOSITORY / "mosld_bench").rglob("*.py"):
        text = file.read_text()
        assert not [word for word in read if word in text] or file.name in PICKLED, file


def test_other_processes_do_not_look_into_the_current_folder(workspace: Path) -> None:
    """What is started for background work and for the check of items has Python's safe path."""
    for file in (REPOSITORY / "mosld_bench").rglob("*.py"):
        text = file.read_text()
        if "sys.executable," in text:
            assert 'sys.executable, "-P"' in text, file


def test_records_name_methods_that_are_not_imported(workspace: Path) -> None:
    then = {"version": 1, "plugins": [{"name": "hostile_method:M", "sha256": "00"}]}
    (workspace / "hostile_method.py").write_text(METHOD)
    from mosld_bench.spec.recipe import Recipe

    recipe = Recipe(name="bad", title="Bad", method="hostile_method:M")
    now = registry.code_now(recipe, None, json.loads(json.dumps(then)))
    assert now is not None
    assert now["plugins"][0]["sha256"] != "00", "its file is read, and not run"
    assert not (workspace / MARK).exists()


@pytest.mark.slow
def test_a_module_in_the_current_folder_hides_no_library_from_workers(workspace: Path) -> None:
    """Ray puts the current folder before all other places for modules of its workers."""
    for name in ("peft", "pydantic", "safetensors"):
        (workspace / f"{name}.py").write_text(MARKS)
    done = bench("run", "s", "--cpus", "1", cwd=workspace, fresh=True, PYTHONPATH=str(REPOSITORY))
    assert done.returncode == 0, done.stderr
    assert not (workspace / MARK).exists()
