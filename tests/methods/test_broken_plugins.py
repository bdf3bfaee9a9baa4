"""Every way to break a plug-in: one sentence with the author's file and line and the distribution, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mosld_bench.errors import BenchError, BudgetError, MethodError
from mosld_bench.methods import fit_budget, registry
from mosld_bench.methods.contract import Check, check_all, check_method
from mosld_bench.records import method_code
from mosld_bench.scheduling.plan import make_plan
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from tests.support.models import config

SHAPE = config(layers=1)

#: A sound plug-in: y = W0 x + U D x. What is broken in it is a replacement of one of its lines.
SOUND = """
import torch
from torch import nn

from mosld_bench import Method


class Beside(nn.Module):
    def __init__(self, layer, r):
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, r, bias=False, device=layer.weight.device)
        self.up = nn.Linear(r, layer.out_features, bias=False, device=layer.weight.device)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        y = self.layer(x)
        return y + self.up(self.down(x.float())).to(y.dtype)


class Plug(Method):
    knob = "r"

    def attach(self, model, params):
        for block in model.model.layers:
            block.self_attn.q_proj = Beside(block.self_attn.q_proj, params["r"])
        return model
"""

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Install]:
    """Install a plug-in: its module's source, its name, and its distribution; returns the module's file."""
    monkeypatch.syspath_prepend(tmp_path)
    modules: list[str] = []

    def forget() -> None:
        for cached in (registry._entry_points, method_code._installed, method_code._code):
            cached.cache_clear()

    def plug(source: str, module: str, name: str = "plug", value: str = "") -> Path:
        file = tmp_path / f"{module}.py"
        file.write_text(source)
        info = tmp_path / f"bench_{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: bench-{module}\nVersion: 1.2\n")
        (info / "top_level.txt").write_text(f"{module}\n")
        (info / "entry_points.txt").write_text(f"[mosld_bench.methods]\n{name} = {value or f'{module}:Plug'}\n")
        modules.append(module)
        forget()
        return file

    yield plug
    for module in modules:
        sys.modules.pop(module, None)
    forget()


def line_of(source: str, text: str) -> int:
    (number,) = (number for number, line in enumerate(source.splitlines(), 1) if text in line)
    return number


#: What does not load -> the source, the line that is said (None: of no file), and the words.
UNLOADABLE: dict[str, tuple[str, str | None, str]] = {
    "import": (
        f"import no_such_library\n{SOUND}",
        "import no_such_library",
        "ModuleNotFoundError: No module named 'no_",
    ),
    "syntax": (SOUND.replace('knob = "r"', 'knob = = "r"'), "knob = =", "SyntaxError: invalid syntax"),
    "at import": (f"{SOUND}\n\nPlug.r = 1 / 0\n", "Plug.r = 1 / 0", "ZeroDivisionError: division by zero"),
    "no class": (SOUND.replace("class Plug", "class Plugg"), None, "has no attribute 'Plug'"),
    "no method": (SOUND.replace("Plug(Method)", "Plug"), None, "which is not a subclass of mosld_bench.Method"),
    "no attach": (SOUND.replace("def attach(", "def atach("), "class Plug(Method)", "abstract class Plug"),
}


@pytest.mark.parametrize("case", UNLOADABLE)
def test_what_cannot_be_loaded_is_told_with_its_distribution_and_line(case: str, install: Install) -> None:
    source, marked, words = UNLOADABLE[case]
    file = install(source, "plug_of_loading")
    with pytest.raises(MethodError) as told:
        registry.get("plug")
    text = str(told.value)
    assert words in text
    assert "distribution bench-plug_of_loading 1.2" in text
    assert text.count("\n") == 0
    if marked is not None:
        assert f"{file}, line {line_of(source, marked)}" in text
    assert registry.names()["plug"] == "plug_of_loading:Plug"
    assert registry.get("mixture")  # others are as they were
    assert registry.problems() == []


START, FORWARD, TRAIN = "the output after attach", "a forward gives logits", "a few steps of training"
COUNT, KNOB, SAVE = "the count on the meta device", "turning the knob up", "what was saved"
ATTACH, SEED, HALF = "attach returns the model", "the same seed", "it trains on a base model in bfloat16"

RETURN, KNOB_LINE, RANK = "        return model\n", 'knob = "r"', 'params["r"])'
UP = "self.up(self.down(x.float()))"

#: Replacements of a few lines: a start that no seed fixes, a step that raises, and a `save` that saves nothing.
DRAWS = "nn.init.zeros_(self.up.weight); self.down.weight.data += len(SEEN.append(0) or SEEN)"
STEPS = f"""{KNOB_LINE}
    def after_step(self, model, step, steps):
        model.nope"""
SAVES = f"""{KNOB_LINE}
    def save(self, model, base, params, folder):
        import json
        from safetensors.torch import save_file
        (folder / "adapter_method.json").write_text(json.dumps({{"params": dict(params)}}))
        save_file({{}}, folder / "adapter_model.safetensors")"""
DEVICE = 'params["r"] + (model.lm_head.weight.device.type == "cpu"))'

#: What is broken -> what is put in place of what, the claim that does not hold, words of the reason, and a text of the
#: line of the author's file that is said.
BROKEN: dict[str, tuple[str, str, str, str, str]] = {
    "exception in attach": (RANK, 'params["rr"])', ATTACH, "it raises KeyError: 'rr'", 'params["rr"]'),
    "forgotten return": (RETURN, "", ATTACH, "it returns nothing, and has to return the model", "def attach"),
    "another thing": ("return model", "return model, 1", ATTACH, "it returns a tuple", "def attach"),
    "a part": ("return model", "return model.model", FORWARD, "no output with logits", "def attach"),
    "nothing trains": (
        "return model", "return model.requires_grad_(False)", ATTACH, "nothing of the model", "def attach",
    ),
    "exception in forward": ("self.layer(x)", "self.layr(x)", FORWARD, "no attribute 'layr'", "self.layr(x)"),
    "start": ("nn.init.zeros_(", "nn.init.ones_(", START, "logits moved by up to", "def attach"),
    "nan in forward": (
        UP, f"({UP} / 0)", FORWARD, "NaN first comes out of model.layers.0.self_attn.q_proj, a Beside", "def forward",
    ),
    "nan in training": (UP, f"({UP}).sqrt()", TRAIN, "the gradient of step 1 is no number", "def attach"),
    "exception in a step": (KNOB_LINE, STEPS, TRAIN, "nope", "model.nope"),
    "count": (RANK, DEVICE, COUNT, "on the meta device", "def attach"),
    "no such knob": (KNOB_LINE, 'knob = "rank"', KNOB, "its knob is 'rank', which is neither", "class Plug"),
    "knob without effect": (RANK, "4)", KNOB, "r 2 has 256 parameters, r 3 has 256", "def attach"),
    "seed": ("nn.init.zeros_(self.up.weight)", DRAWS, SEED, "two runs with one seed differ", "def attach"),
    "not saved": (
        KNOB_LINE, SAVES, SAVE, "these came back with other values: model.layers.0.self_attn.q_proj.down.weight",
        "def save",
    ),
    "dtype": (UP, "self.up(self.down(x))", HALF, "RuntimeError: ", "self.up(self.down(x))"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_method_is_told_once_with_the_line_of_its_author(case: str, install: Install) -> None:
    before, after, claim, words, marked = BROKEN[case]
    source = f"SEEN = []\n{SOUND}".replace(before, after, 1)
    file = install(source, f"plug_{case.replace(' ', '_')}")
    checks = check_all(registry.get("plug"), {"r": 2}, config=SHAPE)
    broken: list[Check] = [check for check in checks if check.passed is False]
    assert [check.check[: len(claim)] for check in broken] == [claim], broken
    reason = broken[0].reason
    assert words in reason
    assert f"{file}, line {line_of(source, marked)}" in reason
    assert "\n" not in reason
    for check in checks:  # what needs it is not tried, and says so
        assert check.passed is not None or check.reason.startswith("needs that ")


def test_the_error_of_check_method_names_the_distribution_and_every_breach(install: Install) -> None:
    source = SOUND.replace("nn.init.zeros_(", "nn.init.ones_(").replace(UP, "self.up(self.down(x))")
    file = install(source, "plug_of_two")
    with pytest.raises(MethodError) as told:
        check_method(registry.get("plug"), {"r": 2}, config=SHAPE)
    first, *breaches = str(told.value).splitlines()
    assert first == (
        f"The method plug_of_two:Plug (distribution bench-plug_of_two 1.2; {file}, line "
        f"{line_of(source, 'class Plug')}) breaks 2 of the contract's 12 checks:"
    )
    assert [breach.strip()[: len(START)] for breach in breaches] == [START, HALF[: len(START)]]


def test_a_sound_one_keeps_the_contract(install: Install) -> None:
    install(SOUND, "plug_that_is_sound")
    assert len(check_method(registry.get("plug"), {"r": 2}, config=SHAPE)) == 12


def test_one_name_of_two_packages_stops_that_name_alone(install: Install) -> None:
    install(SOUND, "plug_the_first")
    install(SOUND, "plug_the_second")
    with pytest.raises(MethodError) as told:
        registry.get("plug")
    for module in ("plug_the_first", "plug_the_second"):
        assert f"{module}:Plug, of the distribution bench-{module} 1.2" in str(told.value)
    assert registry.problems() == [str(told.value)]
    assert registry.names()["plug"] == "plug_the_first:Plug and plug_the_second:Plug"
    assert type(registry.get("plug_the_first:Plug")).__module__ == "plug_the_first"
    assert registry.get("peft")


def test_a_built_in_name_stays_the_built_in_method_s(install: Install) -> None:
    install(SOUND, "plug_of_peft", name="peft")
    assert type(registry.get("peft")).__module__ == "mosld_bench.methods.builtin"
    (problem,) = registry.problems()
    assert problem == (
        "The name 'peft' is that of a built-in method, so that plug_of_peft:Plug, of the distribution "
        "bench-plug_of_peft 1.2 cannot be had by it; its author has to choose another."
    )


@pytest.mark.parametrize("value", ["no_such_module:Plug", "plug_of_nowhere", "not a module!", ":Plug"])
def test_an_entry_point_that_leads_nowhere_stops_its_name_alone(value: str, install: Install) -> None:
    install(SOUND, "plug_of_nowhere", value=value)
    with pytest.raises(MethodError, match="The method 'plug'"):
        registry.get("plug")
    assert registry.get("peft")


def recipe(**more: object) -> Recipe:
    return Recipe.model_validate({"name": "plugged", "title": "Plugged", "method": "plug", "params": {"r": 2}} | more)


def test_a_recipe_whose_knob_is_unknown_is_told_what_can_be_turned(install: Install) -> None:
    install(SOUND, "plug_of_knobs")
    with pytest.raises(BenchError, match=r"knob named 'rnak'. Did you mean 'rank'\? Known: r, rank"):
        fit_budget(recipe(knob="rnak", params={"r": 2, "rank": 3}), SHAPE, "300")
    (broken,) = (c for c in check_all(registry.get("plug"), {"r": 2}, knob="x", config=SHAPE) if not c.passed)
    assert broken.reason.startswith("There is no whole number to turn as the knob named 'x'. Known: r.")


def test_a_method_whose_knob_is_not_there_has_no_size_to_set_and_says_where(install: Install) -> None:
    source = SOUND.replace('knob = "r"', 'knob = "rank"')
    file = install(source, "plug_without_knob")
    with pytest.raises(BudgetError, match="has a fixed size") as told:
        fit_budget(recipe(), SHAPE, "300")
    assert f"its knob 'rank' is not in the params ({file}, line {line_of(source, 'class Plug')})" in str(told.value)


def test_a_plan_says_whose_attach_fails(install: Install) -> None:
    source = SOUND.replace("block.self_attn.q_proj, params", "block.self_attn.q_prj, params")
    file = install(source, "plug_of_plans")
    with pytest.raises(BenchError) as told:
        fit_budget(recipe(), SHAPE, "native")
    assert "distribution bench-plug_of_plans 1.2" in str(told.value)
    assert f"({file}, line {line_of(source, 'q_prj')}: " in str(told.value)


def test_a_word_leaves_a_broken_plug_in_out_and_a_name_asks_for_it(tiny: Path, install: Install) -> None:
    install(f"{SOUND}\n\n1 / 0\n", "plug_of_words")
    (tiny / "methods" / "plugged.yaml").write_text("title: Plugged\nmethod: plug\ngroup: own\nparams: {r: 2}\n")
    file, workspace = tiny / "reports" / "tiny" / "study.yaml", Workspace(tiny, tiny)
    plan = make_plan(Study.load(file, {"recipes": ["lora", "own"]}), workspace)
    assert [trial.recipe.name for trial in plan.trials] == ["base", "lora"]
    ((trial, reason),) = plan.left_out
    assert trial.recipe.name == "plugged"
    assert "ZeroDivisionError" in reason
    with pytest.raises(MethodError, match=r"bench-plug_of_words 1\.2 cannot be loaded: ZeroDivisionError"):
        make_plan(Study.load(file, {"recipes": ["lora", "plugged"]}), workspace)
