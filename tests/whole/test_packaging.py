"""Both ways to install: what the wheel carries, and that it runs from any folder with what it carries."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.inputs.source_note import NOTE
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY, bench, declarations, tracked
from tests.support.plugins import installed

FIXED = {"mosld_bench", "methods", "tasks", "results", "reports", "tests", "pyproject.toml", "README.md"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of what git tracks, built without network."""
    source = tmp_path_factory.mktemp("source")
    for name in tracked():
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)],
        check=True, capture_output=True,
    )  # fmt: skip
    return next(out.glob("*.whl"))


def test_wheel_carries_the_declarations_and_nothing_at_top_level(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"mosld_bench", f"{wheel.name.split('-py3')[0]}.dist-info"}
    bundled = {name.removeprefix("mosld_bench/_bundled/") for name in names if "_bundled" in name}
    for name in ("methods/mosld.yaml", "tasks/openbookqa.yaml", "tasks/dialogsum.py", "tasks/embedded/emb_world.yaml",
                 "tasks/embedded/data/emb_world_test.parquet", "reports/embedded/study.yaml"):  # fmt: skip
        assert name in bundled
    assert not [name for name in bundled if name.endswith((".pdf", ".png", "record.json"))]
    inside = {"py.typed", "reporting/report.typ", "inputs/shapes.json", "embedded/model/model.safetensors",
              "reporting/explorer/assets/explorer.js", "reporting/explorer/assets/explorer.css"}  # fmt: skip
    inside |= {f"methods/templates/{name}.txt" for name in ("module.py", "tuner.py", "recipe.yaml", "pyproject.toml")}
    assert {f"mosld_bench/{name}" for name in inside} <= set(names)
    assert not [name for name in names if "/explorer/web/" in name]  # sources of the bundle
    assert wheel.stat().st_size < 10 * 2**20


def test_a_wheel_works_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    site, folder = tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    done = bench("run", "embedded", "--methods", "lora", "--seeds", "0", "--steps", "2", "--limit", "4", "--executor",
                 "inline", cwd=folder, fresh=True, PYTHONPATH=str(site))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} == {"results", "reports"}
    assert (folder / "reports" / "embedded" / "report.pdf").stat().st_size > 10_000
    where = subprocess.run(
        [sys.executable, "-c", "import mosld_bench; print(mosld_bench.__file__)"],
        capture_output=True, text=True, cwd=folder, env={"PYTHONPATH": str(site)}, check=True,
    )  # fmt: skip
    assert str(site) in where.stdout


def test_top_level_is_as_promised() -> None:
    top = {name.split("/")[0] for name in tracked()}
    others = {"LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff"}
    assert top - FIXED <= others | {name for name in top if name.startswith(".")}


def commands(*pages: str) -> list[str]:
    """The mosld-bench commands in the code blocks of ``pages``, by default of all, each once."""
    pages = pages or tuple(page for page in tracked() if page.endswith(".md"))
    text = "\n".join((REPOSITORY / page).read_text(encoding="utf-8") for page in pages)
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, re.S)
    lines = [
        re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()
    ]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return list(dict.fromkeys(part for part in parts if part.startswith("mosld-bench")))


SHORT = ["--steps", "2", "--set", "train.validation_items=2"]
QUICK = [*SHORT, "--seeds", "0", "--limit", "4", "--executor", "inline"]


@pytest.fixture
def cache(tmp_path: Path, miniature: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for the commands of a test, which fetch from small repositories on this machine."""
    repositories, cache = tmp_path / "hub", tmp_path / "cache"
    for study in (REPOSITORY / "reports").glob("*/study.yaml"):
        for model in Study.load(study).models:
            folder = repositories / "models" / model.name
            if model.name != "embedded" and not folder.is_dir():
                shutil.copytree(MODEL_DIR, folder, ignore=shutil.ignore_patterns(NOTE))
                (folder / "pytorch_model.bin").write_bytes(b"a pickle")
                (folder / "onnx").mkdir()
                (folder / "onnx" / "config.json").write_text("{}")
    (repositories / "datasets").symlink_to(miniature)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests" / "support" / "hub"), prepend=os.pathsep)
    monkeypatch.setenv("STAND_IN_HUB", str(repositories))
    monkeypatch.setenv("MOSLD_BENCH_CACHE", str(cache))
    monkeypatch.setenv("BROWSER", "true")  # which opens nothing and is content
    return cache


def _every_command() -> list[Any]:
    """Those of the README, and marked as slow those of the pages that it leads to, but for `test_adapters.py`'s."""
    first = commands("README.md")
    elsewhere = {"score", "lm-eval"}
    others = (command for command in commands() if command not in first and command.split()[1] not in elsewhere)
    return [*first, *(pytest.param(command, marks=pytest.mark.slow) for command in others)]


@pytest.mark.parametrize("command", _every_command())
def test_every_command_of_the_readme_runs(
    command: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As written; a training command cut in length, or as a plan where it needs what this machine lacks."""
    words = command.split()[1:]
    root = declarations(tmp_path / "root")
    if "half-rank" in command and words[1] != "new":
        monkeypatch.setenv("PYTHONPATH", str(installed("half-rank", tmp_path / "site")), prepend=os.pathsep)
    (root / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}')
    if words[0] == "run" and (words[1] in {"smollm2", "paper"} or "--gpus" in words):
        words.append("--dry-run")  # its weights and its devices may not be here, but the shape of its model is
    elif words[:2] == ["run", "parameters"]:
        pass  # takes seconds as it is
    elif words[0] == "run":
        words += QUICK if "--methods" in words else [*QUICK, "--methods", "lora"]  # all of them run in one command
    elif words[0] == "tune":
        words += [*SHORT, "--methods", "lora", "--executor", "inline"]
    elif words[0] == "compare":
        for recorded in ("smollm2", "smollm2-budget"):
            (root / "results" / recorded).symlink_to(REPOSITORY / "results" / recorded)
    elif words[0] == "merge":
        for lab, pattern in (("lab-a", "lora-*"), ("lab-b", "lora-mixture-*")):
            for folder in (REPOSITORY / "results" / "smollm2").glob(pattern):
                shutil.copytree(folder, root / lab / "results" / "smollm2" / folder.name)
    elif words[0] == "open":
        (root / "results" / "smollm2").symlink_to(REPOSITORY / "results" / "smollm2")
        if words[1:] == []:  # of a workspace in which something was reported
            (root / "reports" / "smollm2" / "report.pdf").write_text("")
    elif words[0] == "profile":
        words += ["--methods", "lora", "--rounds", "1", "--prompt-tokens", "8", "--new-tokens", "2", "--batch", "1"]
    elif words[0] == "report":
        first = bench("run", *words[1:], "--methods", "lora", *QUICK, cwd=root)
        assert first.returncode == 0, first.stderr
        words += [*QUICK[:-2], "--methods", "lora"]  # the options that made these records
    done = bench(*words, cwd=root)
    assert done.returncode == 0, done.stderr + done.stdout
    if words[0] == "fetch":
        to = root / words[words.index("--to") + 1] if "--to" in words else None
        _check_fetched(words[1], root=root, to=to, cache=cache, printed=done.stdout)
    elif words[0] == "run" and "--dry-run" in words:
        name = "paper" if words[1].startswith("--") else words[1]
        recipes = {"recipes": ["all"]} if "--methods" in words else {}
        study = Study.load(root / "reports" / name / "study.yaml", recipes)
        assert f"{study.name}: {len(study.plan(Workspace(root, root)))} trials on {study.model_names}" in done.stdout
        assert not (root / "results" / study.name).exists()


def _check_fetched(name: str, *, root: Path, to: Path | None, cache: Path, printed: str) -> None:
    """The study's models are where a run finds them, and with ``to`` its data sets: what it reads and no more."""
    study = Study.load(root / "reports" / name / "study.yaml")
    for model in study.models:
        folder = to / model.name if to else cache / "models" / model.name.replace("/", "--")
        assert f"{model.name}: {folder.relative_to(root) if to else folder}" in printed.replace("\n", " ")
        names = {path.name for path in MODEL_DIR.iterdir()}
        assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == names
        note = json.loads((folder / NOTE).read_text())
        assert note == {"source": f"hub:{model.name}", "revision": model.revision or "main"}
    if to is None:
        return
    loader = TaskLoader([root / "tasks"], to)
    for task in study.tasks:
        assert len(loader.get(task).eval_docs) > 0
    datasets = {str((loader.files.config(task) or {})["dataset_path"]) for task in study.tasks}
    models = {model.name for model in study.models}
    assert {path.relative_to(to).as_posix() for path in to.glob("*/*") if path.is_dir()} == datasets | models


@pytest.mark.usefixtures("cache")
def test_what_is_fetched_runs_without_a_network(tmp_path: Path) -> None:
    """As the README has it for a cluster, at the smallest size; the model that is served is small."""
    root = declarations(tmp_path / "root")
    there = bench("fetch", "paper", "--to", "mirror", cwd=root)
    assert there.returncode == 0, there.stderr
    done = bench(
        "run", "paper", "--model-root", "mirror", "--data-root", "mirror", "--methods", "lora", "--settings",
        "mixture", "--budget", "r8", "--gpus", "0", *QUICK, cwd=root,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    records = [json.loads(path.read_text()) for path in (root / "results" / "paper").glob("*/record.json")]
    assert {record["meta_info"]["weights"]["source"] for record in records} == {"hub:NousResearch/Llama-2-7b-hf"}
    assert {record["trial"]["recipe"]["name"] for record in records} == {"base", "lora"}
