"""Both ways to install: what the wheel carries, and that it runs from any folder with what it carries."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, bench, declarations, tracked

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
    inside = {"py.typed", "report/report.typ", "inputs/shapes.json", "embedded/model/model.safetensors"}
    assert {f"mosld_bench/{name}" for name in inside} <= set(names)
    assert wheel.stat().st_size < 10 * 2**20


def test_a_wheel_works_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    done = bench("run", "embedded", "--methods", "lora", "--seeds", "0", "--steps", "2", "--limit", "4", "--executor",
                 "inline", cwd=here, PYTHONPATH=str(site))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name for path in here.iterdir()} == {"results", "reports"}
    assert (here / "reports" / "embedded" / "report.pdf").stat().st_size > 10_000
    where = subprocess.run(
        [sys.executable, "-c", "import mosld_bench; print(mosld_bench.__file__)"],
        capture_output=True, text=True, cwd=here, env={"PYTHONPATH": str(site)}, check=True,
    )  # fmt: skip
    assert str(site) in where.stdout


def test_top_level_is_as_promised() -> None:
    top = {name.split("/")[0] for name in tracked()}
    others = {"LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff"}
    assert top - FIXED <= others | {name for name in top if name.startswith(".")}


def commands() -> list[str]:
    """The mosld-bench commands in the code blocks of the README and of the pages that it leads to, each once."""
    text = "\n".join((REPOSITORY / page).read_text(encoding="utf-8") for page in tracked() if page.endswith(".md"))
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, re.S)
    lines = [
        re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()
    ]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return list(dict.fromkeys(part for part in parts if part.startswith("mosld-bench")))


QUICK = ["--seeds", "0", "--steps", "2", "--limit", "4", "--executor", "inline"]


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_readme_runs(command: str, tmp_path: Path) -> None:
    """As written; a training command with its length cut, or as a plan where it needs what this machine lacks."""
    words = command.split()[1:]
    root = declarations(tmp_path / "root")
    if words[0] == "fetch":
        words.append("--help")
    elif words[0] == "run" and (words[1] in {"smollm2", "paper"} or "--gpus" in words):
        # The plan of it: its weights and its devices may not be here.
        at = [index for index, word in enumerate(words) if word in {"--data-root", "--model-root", "--ray-address"}]
        dropped = {i for index in at for i in (index, index + 1)}
        kept = [word for index, word in enumerate(words[1:], 1) if index not in dropped]
        words = ["run", *kept, "--dry-run", "--model", str(REPOSITORY / "mosld_bench" / "embedded" / "model"), "--set",
                 "budget_tolerance=0.3"]  # fmt: skip
    elif words[:2] == ["run", "parameters"]:
        pass  # takes seconds as it is
    elif words[0] == "run":
        words += QUICK
    elif words[0] == "profile":
        words += ["--methods", "lora", "--rounds", "1", "--prompt-tokens", "8", "--new-tokens", "2", "--batch", "1"]
    elif words[0] == "report":
        first = bench("run", *words[1:], "--methods", "lora", *QUICK, cwd=root)
        assert first.returncode == 0, first.stderr
        words += [*QUICK[:-2], "--methods", "lora"]  # the options that made these records
    done = bench(*words, cwd=root)
    assert done.returncode == 0, done.stderr + done.stdout
