"""What importing a part of the package loads, and that no part imports what stands above it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

IMPORTS = """
import sys
{first}
heavy = [m for m in {banned} if m in sys.modules]
assert not heavy, heavy
"""


def run_python(code: str) -> None:
    """Run ``code`` in a process of its own, which has imported nothing yet."""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(
    ("first", "banned"),
    [
        ("import mosld_bench", ["torch", "ray", "transformers", "peft", "pandas"]),
        ("import mosld_bench.spec, mosld_bench.records", ["torch", "ray", "transformers", "peft", "pandas", "numpy"]),
        ("import mosld_bench.cli", ["torch", "ray", "transformers", "peft", "lm_eval"]),
        (
            "from mosld_bench.spec import study, task_files; from mosld_bench.methods import registry",
            ["torch", "ray", "transformers"],
        ),
        (
            "from mosld_bench.reporting import build; from mosld_bench.records import record",
            ["torch", "ray", "transformers", "lm_eval"],
        ),
        ("from mosld_bench.trial import train, scoring, execute; from mosld_bench.inputs import tasks", ["ray"]),
    ],
)
def test_what_is_light_loads_nothing_heavy(first: str, banned: list[str]) -> None:
    run_python(IMPORTS.format(first=first, banned=banned))


def test_only_the_ray_executor_imports_ray() -> None:
    users = [
        path.name
        for path in (REPOSITORY / "mosld_bench").rglob("*.py")
        if re.search(r"^\s*(import|from) ray\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert users == ["ray_executor.py"]


@pytest.mark.parametrize("package", ["spec", "records"])
def test_a_package_offers_its_public_names(package: str) -> None:
    """Each public name is there, is no module, and stands in ``__all__`` once."""
    run_python(
        f"import types, mosld_bench.{package} as package\n"
        "assert len(set(package.__all__)) == len(package.__all__)\n"
        "for name in package.__all__:\n"
        "    assert not isinstance(getattr(package, name), types.ModuleType), name\n"
    )


@pytest.mark.parametrize(
    ("module", "wrong", "contract"),
    [
        ("records/store.py", "mosld_bench.scheduling.plan", "Packages import in one direction"),
        ("reporting/stats.py", "mosld_bench.cost.memory", "A report is a function of a study and its records"),
        ("trial/batching.py", "ray", "Only the Ray executor imports ray"),
    ],
)
def test_a_wrong_import_breaks_its_contract(module: str, wrong: str, contract: str, tmp_path: Path) -> None:
    """The import rule of pyproject.toml is held, also where the import stands inside a function."""
    pytest.importorskip("importlinter")
    shutil.copytree(REPOSITORY / "mosld_bench", tmp_path / "mosld_bench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    with (tmp_path / "mosld_bench" / module).open("a") as file:
        file.write(f"\n\ndef late() -> None:\n    import {wrong}  # noqa: F401\n")
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()",
         "--no-cache"],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract} BROKEN" in done.stdout
