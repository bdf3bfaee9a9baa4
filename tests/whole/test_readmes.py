"""What the pages name exists: files, folders, links, commands, options, keys, functions; and their examples work.

`test_packaging.py` runs the commands of the pages, `test_kept.py` holds their tables of results to the reports.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import tomllib
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from mosld_bench import __version__
from mosld_bench.cli.app import app
from mosld_bench.scheduling.plan import make_plan
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.selection import Selection
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import EvaluateSpec, Resources, TrainSpec
from mosld_bench.spec.workspace import Workspace
from mosld_bench.spec.yaml_file import read_yaml
from tests.conftest import REPOSITORY, bench, declarations, tracked
from tests.support.commands import python
from tests.whole.test_packaging import commands

FILES = tracked()
PAGES = [path for path in FILES if path.endswith(".md") and path != "CHANGELOG.md"]
PACKAGE = REPOSITORY / "mosld_bench"
#: Folders that a path on any page may be relative to, beside the page's own; the last has what a run leaves.
BASES = [REPOSITORY, PACKAGE, REPOSITORY / "reports" / "embedded", REPOSITORY / "results" / "smollm2"]
#: In place of a name: STUDY, TRIAL, ORGANISATION/DATASET, METHOD.
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b(?!\.)")


def _text(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def _prose(page: str) -> str:
    """A page without its code blocks, each paragraph on one line."""
    text = re.sub(r"```.*?```", "", _text(page), flags=re.S)
    return re.sub(r"(?<=[^\n|])\n(?=[^\n|#-])", " ", text)


def _spans(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _text(page), re.S)


def _table(page: str, head: str) -> dict[tuple[str, ...], str]:
    """The tables with that head of their first column: names in backticks of a first cell -> the rest of the row."""
    tables = _text(page).split(f"\n\n| {head} |")[1:]
    lines = [line for table in tables for line in table.split("\n\n")[0].splitlines()[2:]]
    rows = [line.strip("|").split("|", 1) for line in lines]
    return {tuple(_spans(first)): rest.strip() for first, rest in rows}


def _names(page: str, head: str) -> list[str]:
    return [name for names in _table(page, head) for name in names]


def test_there_are_pages_for_newcomers() -> None:
    assert {
        "README.md", "CONTRIBUTING.md", "mosld_bench/README.md", "methods/README.md", "tasks/README.md",
        "reports/README.md", "reports/smollm2/README.md", "tests/benchmarks/README.md",
    } <= set(PAGES)  # fmt: skip
    assert len(_text("README.md").splitlines()) <= 100, "a visitor reads two screens"


def _slug(heading: str) -> str:
    """The anchor that a heading has."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_that_git_tracks(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", _prose(page)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = str(((REPOSITORY / page).parent / (file or Path(page).name)).resolve().relative_to(REPOSITORY.resolve()))
        assert any(name == path or name.startswith(f"{path}/") for name in FILES), f"{page}: {target}"
        if anchor:
            assert anchor in {_slug(title) for title in re.findall(r"^#+ (.*)$", _text(path), re.M)}, target


def _is_path(span: str) -> bool:
    file = re.fullmatch(r"[\w-]+\.(yaml|py|toml|md|csv|cff|txt|pdf|typ|json|parquet)", span)
    return not PLACEHOLDER.search(span) and bool(file or re.fullmatch(r"[\w.-]+(/[\w.-]+)*/[\w.-]*", span))


@pytest.mark.parametrize("page", PAGES)
def test_every_path_in_backticks_exists(page: str) -> None:
    for span in filter(_is_path, _spans(_prose(page))):
        bases = [(REPOSITORY / page).parent, *BASES]
        there = any((base / span).exists() for base in bases) or next(BASES[-1].glob(f"*/{span}"), None)
        assert there, f"{page}: {span}"


@cache
def _words() -> set[str]:
    """Every word of the files that are no pages and no data."""
    kinds = (".py", ".yaml", ".toml", ".typ", ".json", "run", ".txt")
    paths = [path for path in FILES if path.endswith(kinds) and not path.startswith("results/")]
    text = " ".join((REPOSITORY / path).read_text(encoding="utf-8") for path in paths if (REPOSITORY / path).is_file())
    return set(re.findall(r"\w+", text))


@pytest.mark.parametrize("page", PAGES)
def test_every_identifier_in_backticks_is_in_the_code(page: str) -> None:
    for span in _spans(_prose(page)):
        if re.fullmatch(r"[A-Za-z_]\w*", span) and not PLACEHOLDER.fullmatch(span):
            assert span in _words(), f"{page}: {span}"


@pytest.mark.parametrize("page", PAGES)
def test_every_dotted_name_is_an_object(page: str) -> None:
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir()} | {"pipeline", "mosld_bench", "Method"}
    for span in _spans(_prose(page)):
        first, *rest = span.split(".")
        if not re.fullmatch(r"\w+(\.\w+)+", span) or first not in packages or rest[-1] in {"py", "pdf", "methods"}:
            continue
        assert _resolved(span), f"{page}: {span}"


def _resolved(name: str) -> bool:
    """Whether a name such as ``spec.study.Study.load`` or ``Method.attach`` is there, from the package on."""
    parts = name.removeprefix("mosld_bench.").split(".")
    value: Any = importlib.import_module("mosld_bench")
    for index, part in enumerate(parts):
        try:
            value = importlib.import_module(f"mosld_bench.{'.'.join(parts[: index + 1])}")
        except ModuleNotFoundError:
            value = getattr(value, part, None)
    return value is not None


def _command_lines() -> list[tuple[str, str]]:
    """(page or code block, command) for every command of the pages, placeholders and all."""
    inline = [(page, span) for page in PAGES for span in _spans(_prose(page)) if span.startswith("mosld-bench ")]
    return inline + [("a code block", command) for command in commands()]


def _options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}


def _every(command: Any) -> list[Any]:
    """A command and all below it."""
    return [command, *(inner for below in getattr(command, "commands", {}).values() for inner in _every(below))]


@pytest.mark.parametrize(("place", "line"), _command_lines())
def test_every_command_and_option_is_there(place: str, line: str) -> None:
    words = line.split()[1:]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and not words[0].startswith("-"):
        command = command.commands[words.pop(0)]
    if not command.context_settings.get("ignore_unknown_options"):  # else they are those of another program
        assert {word for word in words if word.startswith("-")} <= _options(command), place


def test_every_option_that_is_named_alone_is_one_of_a_command() -> None:
    known = {option for command in _every(typer.main.get_command(app)) for option in _options(command)}
    for page in PAGES:
        for span in _spans(_prose(page)):
            if span.startswith("--"):
                assert span.split()[0] in known, f"{page}: {span}"


def test_the_packages_are_listed_with_their_docstrings() -> None:
    docstrings = {}
    for file in PACKAGE.glob("*/__init__.py"):
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        docstrings[f"{file.parent.name}/"] = " ".join(docstring.split("\n\n")[0].split())
    table = _table("mosld_bench/README.md", "package")
    assert {package: sentence.strip("| ") for (package,), sentence in table.items()} == docstrings


def test_the_import_rule_is_the_contract() -> None:
    contracts = tomllib.loads(_text("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    (rule,) = _blocks("mosld_bench/README.md", "text")
    assert rule.strip().split(" > ") == layers


def test_the_example_for_programs_runs(tmp_path: Path) -> None:
    """As in a notebook: in a folder of its own, in a process that has imported nothing of ours; of a small study."""
    (code,) = _blocks("mosld_bench/README.md", "python")
    checks = """
assert set(frame.recipe) == {"base", "lora", "mosld"} == set(accuracy.index), frame.recipe
assert dict(zip(sizes.recipe, sizes.trainable)) == {'base': 0, 'lora': 60_096, 'mosld': 59_904} and len(sizes) == 5
assert set(gaps["of"]) >= {"in_domain", "out_of_domain"}
assert found.pdf.is_file() and "<table>" in found._repr_html_()
print("all of it")
"""
    root = declarations(tmp_path / "root")
    path = root / "reports" / "embedded" / "study.yaml"
    small = {
        "in_domain": ["emb_world"], "out_of_domain": ["emb_people"], "figures": ["size"], "evaluate": {},
        "train": {"steps": 20, "batch_size": 4, "validation_items": 5, "learning_rate": 1e-3},
    }  # fmt: skip
    content = {key: value for key, value in read_yaml(path).items() if key not in small}
    path.write_text(yaml.safe_dump({**content, **small}))
    done = python("-c", f"{code}\n{checks}", cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all of it\n")
    assert (root / "size.png").stat().st_size > 10_000
    assert {path.name for path in (root / "results").iterdir()} == {"published", "short"}


def test_the_keys_of_a_recipe_are_all_told() -> None:
    table = _table("methods/README.md", "key")
    assert sorted(_names("methods/README.md", "key")) == sorted({*Recipe.model_fields, "include"} - {"name"})
    required = {name for name, field in Recipe.model_fields.items() if field.is_required()} - {"name"}
    assert {name for names, text in table.items() for name in names if "required" in text} == required


def test_the_fields_of_the_mixture_are_all_told() -> None:
    from peft.config import PeftConfig

    from mosld_bench.tuners.mixture import MixtureConfig

    ours = {field.name for field in fields(MixtureConfig)} - {field.name for field in fields(PeftConfig)}
    assert sorted(_names("methods/README.md", "field of `mixture`")) == sorted(ours)


def test_the_methods_of_the_page_are_the_built_in_ones() -> None:
    built_in = tomllib.loads(_text("pyproject.toml"))["project"]["entry-points"]["mosld_bench.methods"]
    assert sorted(_names("methods/README.md", "`method`")) == sorted(built_in)


def test_the_ablation_of_the_page_is_a_recipe(tmp_path: Path) -> None:
    (example,) = _blocks("methods/README.md", "yaml")
    assert len(example.splitlines()) == 3
    (tmp_path / "mosld.yaml").write_text(_text("methods/mosld.yaml"))
    (tmp_path / "mosld-4-4-4-4.yaml").write_text(example)
    recipe, whole = Recipe.load(tmp_path / "mosld-4-4-4-4.yaml"), Recipe.load(tmp_path / "mosld.yaml")
    assert recipe.params == whole.params | {"experts": 4}


def test_the_keys_of_metadata_are_all_told() -> None:
    files = TaskFiles.scan((REPOSITORY / "tasks",))
    used = {key for task in files.paths for key in (files.config(task) or {}).get("metadata", {})}
    assert sorted(_names("tasks/README.md", "key")) == sorted(used)


def test_the_task_of_the_page_trains(tmp_path: Path) -> None:
    from mosld_bench.inputs.tasks import TaskLoader

    (example,) = _blocks("tasks/README.md", "yaml")
    item = {"question": "Which letter comes first?", "options": ["a", "b"], "answer": 0}
    for split in ("train", "test"):
        (tmp_path / f"toy_{split}.jsonl").write_text(f"{json.dumps(item)}\n")
    (tmp_path / "toy.yaml").write_text(example)
    task = TaskLoader([tmp_path]).get("toy")
    prompt = task.doc_to_text(next(iter(task.training_docs())))
    assert prompt == "Question: Which letter comes first?\nAnswer:"
    shown = bench("tasks", "show", "toy", "--include-path", str(tmp_path))
    assert prompt in shown.stdout, shown.stderr


def test_the_keys_of_a_study_are_all_told() -> None:
    page = "reports/README.md"
    assert sorted(_names(page, "key")) == sorted({*Study.model_fields, "include", "model"})
    assert sorted(_names(page, "key of `train`")) == sorted(TrainSpec.model_fields)
    table = _table(page, "key")
    assert set(_spans(table["evaluate",])) == {*EvaluateSpec.model_fields, "test", "validation"}
    assert set(_spans(table["resources",])) == set(Resources.model_fields)
    assert set(_spans(table["parts",])) == set(Selection.model_fields)


def test_the_study_of_the_page_is_planned(tmp_path: Path) -> None:
    example, _ = _blocks("reports/README.md", "yaml")
    root = declarations(tmp_path / "root")
    (root / "reports" / "mine").mkdir()
    (root / "reports" / "mine" / "study.yaml").write_text(example)
    study = Study.load(root / "reports" / "mine" / "study.yaml")
    cells = {(trial.recipe.name, str(trial.budget), trial.seed) for trial in study.plan(Workspace(root, root))}
    assert cells == {
        ("base", "native", 0), ("lora", "30k", 0), ("lora", "60k", 0), ("mosld", "30k", 0),
        ("mosld", "60k", 0), ("mosld", "60k", 1), ("mosld", "60k", 2),
    }  # fmt: skip
    assert study.train is not None
    assert (study.train.steps, study.train.batch_size) == (100, 32)


def test_the_ablations_of_the_page_are_planned(tmp_path: Path) -> None:
    _, example = _blocks("reports/README.md", "yaml")
    root = declarations(tmp_path / "root")
    (root / "reports" / "mine").mkdir()
    path = root / "reports" / "mine" / "study.yaml"
    path.write_text(f"include: ../embedded/study.yaml\n{example}")
    plan = make_plan(Study.load(path), Workspace(root, root))
    seeds: dict[str, set[int]] = {}
    for trial in plan.trials:
        seeds.setdefault(trial.recipe.name, set()).add(trial.seed)
    page = _spans(_prose("reports/README.md"))
    assert {"mosl", "mosld.top_k-none"} <= seeds.keys() & set(page)
    assert seeds["mosl"] == set(range(5)) > seeds["mosld.top_k-none"]


def test_the_studies_of_the_page_are_all_there() -> None:
    studies = set(Workspace(REPOSITORY, REPOSITORY).studies())
    assert set(_names("reports/README.md", "study")) == studies - {"embedded", "smollm2", "smollm2-budget"}
    kept = {path.split("/")[1] for path in tracked("reports") if path.endswith("/report.pdf")}
    assert kept <= set(_spans(_prose("reports/README.md")))


def test_the_modules_that_the_changelog_names_as_new_are_there() -> None:
    rows = re.findall(r"^  \| `.*$", _text("CHANGELOG.md"), re.M)
    modules = [module for row in rows for module in _spans(row.rsplit(" | ", 1)[1])]
    assert modules
    for module in modules:
        importlib.import_module(module)


def test_the_markers_are_all_told() -> None:
    markers = tomllib.loads(_text("pyproject.toml"))["tool"]["pytest"]["ini_options"]["markers"]
    assert sorted(_names("CONTRIBUTING.md", "marker")) == sorted(marker.split(":")[0] for marker in markers)


def test_every_marker_has_a_test() -> None:
    markers = tomllib.loads(_text("pyproject.toml"))["tool"]["pytest"]["ini_options"]["markers"]
    tests = " ".join(_text(path) for path in FILES if re.fullmatch(r"tests/.*/test_\w+\.py", path))
    for marker in markers:
        assert f"pytest.mark.{marker.split(':')[0]}" in tests


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load(_text("CITATION.cff"))
    project = tomllib.loads(_text("pyproject.toml"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys(), "the format requires them"
    assert citation["cff-version"] == "1.2.0"
    assert (citation["title"], citation["version"]) == (project["name"], __version__)
    assert citation["license"] == project["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert paper["doi"].endswith("arXiv.2412.08946")
