"""`mosld-bench methods`: a method of one's own from nothing to its row, checks that fail, recipes of adapters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Command
from tests.conftest import REPOSITORY, bench
from tests.support.plugins import installed

RECIPE = "title: Scale\nmethod: scale\nparams: {target_modules: [q_proj, v_proj]}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with a recipe of the sample plug-in."""
    for folder in ("methods", "tasks"):
        (tmp_path / "own" / folder).mkdir(parents=True)
    (tmp_path / "own" / "methods" / "scale.yaml").write_text(RECIPE)
    return tmp_path / "own"


def test_a_check_that_fails_ends_with_1_and_is_told_to_programs(
    root: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(root)
    source = (REPOSITORY / "tests" / "plugin" / "bench_scale" / "__init__.py").read_text()
    (root / "scale_of_ones.py").write_text(source.replace("torch.zeros", "torch.ones").replace('"scale"', '"ones"'))
    (root / "methods" / "ones.yaml").write_text(RECIPE.replace("scale", "ones"))
    words = ("methods", "check", "ones", "--plugin", "scale_of_ones", "--root", str(root))
    code, out, err = command(*words)
    assert (code, err) == (1, "")
    first, *lines, last = out.splitlines()
    assert first == f"ones: scale_of_ones:ScaleMethod ({root / 'scale_of_ones.py'}, line 28)"
    (failed,) = (line for line in lines if line.startswith("  FAILED"))
    assert "the output after attach is the base model's: logits moved by up to" in failed
    assert last == "1 of 13 checks failed, 1 not tried."
    code, out, _ = command(*words, "--json")
    checks = json.loads(out)
    assert code == 1
    assert [check.keys() for check in checks] == [{"check", "passed", "reason"}] * 13
    assert [check["passed"] for check in checks].count(False) == 1
    assert command("methods", "check", "onse", "--root", str(root)).code == 2
    assert command(*words, "--model", "./nowhere").code == 2


def test_a_recipe_of_an_adapter(root: Path, command: Command) -> None:
    config = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "base_model_name_or_path": "/home/me/llama"}
    (root / "Their LoRA").mkdir()
    (root / "Their LoRA" / "adapter_config.json").write_text(json.dumps(config))
    words = ("methods", "add", str(root / "Their LoRA"), "--root", str(root))
    code, out, err = command(*words)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        str(root / "methods" / "their-lora.yaml"),
        "LORA: r 4, target_modules ['q_proj'].",
        "A budget turns r.",
        "Left out, being of a model, a machine or a run: base_model_name_or_path.",
        "On the embedded model it has 4,096 trainable parameters.",
    ]
    again = command(*words)
    assert again.code == 2
    assert "The name 'their-lora' is that of a recipe, or of several, already" in again.err
    assert command(*words, "--name", "theirs").code == 0
    assert command("methods", "check", "theirs", "--root", str(root)).code == 0


def test_a_new_method_is_written_and_a_wrong_name_is_a_sentence(root: Path, command: Command, tmp_path: Path) -> None:
    code, out, err = command("methods", "new", "half-rank", "--to", "mine", "--root", str(root))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert all((tmp_path / line).is_file() for line in lines[:5])
    assert lines[5] == "Next: pip install -e mine/half-rank && pytest mine/half-rank"
    for name in ("scale", "peft", "Half"):
        refused = command("methods", "new", name, "--root", str(root))
        assert refused.code == 2
        assert "Traceback" not in refused.err


def test_the_recipe_of_an_installed_package_is_in_reach(tmp_path: Path, root: Path) -> None:
    """One of the workspace goes before it."""
    path = f"{installed('half-rank', tmp_path / 'site')}:{REPOSITORY}"
    shown = bench("methods", "show", "half-rank", "--root", str(root), PYTHONPATH=path)
    assert "method: half-rank" in shown.stdout
    (root / "methods" / "half-rank.yaml").write_text("title: Mine\nmethod: half-rank\n")
    shown = bench("methods", "show", "half-rank", "--root", str(root), PYTHONPATH=path)
    assert "title: Mine" in shown.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["module", "tuner"])
def test_a_method_of_ones_own_from_the_empty_folder_to_its_row(kind: str, tiny: Path, tmp_path: Path) -> None:
    """Written, installed, tested, checked, and run at a budget beside LoRA; its kept adapter is loaded again."""
    root, site = tiny, tmp_path / "site"
    made = bench("methods", "new", "half-rank", "--kind", kind, cwd=root)
    assert made.returncode == 0, made.stderr
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
         "--target", str(site), str(root / "half-rank")],
        check=True, capture_output=True,
    )  # fmt: skip
    path = f"{site}:{REPOSITORY}"
    env = {**os.environ, "PYTHONPATH": path}
    tests = subprocess.run([sys.executable, "-m", "pytest", "-q", str(root / "half-rank")], env=env, check=False)
    assert tests.returncode == 0
    checked = bench("methods", "check", "half-rank", cwd=root, PYTHONPATH=path)
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
    assert "(distribution mosld-bench-half-rank 0.1.0; " in checked.stdout.splitlines()[0]
    run = bench("run", "tiny", "--methods", "lora,half-rank", "--executor", "inline", "--save-adapters", cwd=root,
                timeout=900, PYTHONPATH=path)  # fmt: skip
    assert run.returncode == 0, run.stderr + run.stdout
    table = pd.read_csv(root / "reports" / "tiny" / "tables" / "main.csv").set_index("recipe")
    sizes = table["trainable_parameters"]
    assert sizes["half-rank"] == sizes["lora"] == pytest.approx(6000, rel=0.02)
    (adapter,) = (root / "results" / "tiny").glob("*half-rank*/adapter")
    load = (
        "import sys; from mosld_bench import load_adapter\n"
        "from transformers import AutoModelForCausalLM; import half_rank\n"
        "model = load_adapter(AutoModelForCausalLM.from_pretrained(sys.argv[1]), sys.argv[2])\n"
        "trained = [p for name, p in model.named_parameters() if 'up' in name and 'mlp' not in name]\n"
        "assert len(trained) == 8 and all(bool(p.any()) for p in trained)\n"
    )
    words = [sys.executable, "-c", load, str(root / "model"), str(adapter)]
    loaded = subprocess.run(words, env=env, capture_output=True, check=False)
    assert loaded.returncode == 0, loaded.stderr.decode()
