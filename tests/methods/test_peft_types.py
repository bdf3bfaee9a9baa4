"""Every method of the installed PEFT: what a benchmark can do with it, as `methods/README.md` prints it."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib.metadata import version
from typing import Any

import pytest

from mosld_bench.compat.peft import config_classes
from mosld_bench.errors import BenchError, BudgetError
from mosld_bench.methods import Counts, check_method, fit_budget, peft_types, registry
from mosld_bench.spec.recipe import Recipe
from tests.conftest import REPOSITORY
from tests.support.models import build, config

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT warns of what it adjusts, such as a block's size

README = (REPOSITORY / "methods/README.md").read_text()
PEFT = registry.get("peft")
SHAPE = config(layers=1, hidden_size=64, intermediate_size=64)
OURS = {"LORA_MIXTURE", "MIXLORA"}
TYPES = sorted(set(config_classes()) - OURS)

#: Types whose modules are not linear layers of the attention, or are found by PEFT alone.
OWN_TARGETS = {"ADAPTION_PROMPT", "IA3", "LN_TUNING", "SHADOW", "TRAINABLE_TOKENS"}

#: What the small model asks for, since PEFT's defaults are for large ones, and what PEFT has no default for.
SMALL: dict[str, dict[str, Any]] = {
    "ADAMSS": {"r": 8, "num_subspaces": 2},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 1},
    "C3A": {"block_size": 32},
    "CARTRIDGE": {"num_virtual_tokens": 4},
    "PREFIX_TUNING": {"num_virtual_tokens": 4},
    "PROMPT_TUNING": {"num_virtual_tokens": 4},
    "P_TUNING": {"num_virtual_tokens": 4},
    "LOKR": {"r": 2},
    "MISS": {"r": 8},
    "PSOFT": {"r": 8},
    "ROAD": {"group_size": 32},
    "SHIRA": {"r": 4},
    "TRAINABLE_TOKENS": {"token_indices": [3, 4, 5]},
    "VBLORA": {"vector_length": 32, "num_vectors": 16},
    "WAVEFT": {"n_frequency": 64},
}


def natural(peft_type: str) -> dict[str, Any]:
    """Params as someone writes them who tries a type: its name, two targets, and what the model or PEFT asks for."""
    has_targets = "target_modules" in {each.name for each in fields(config_classes()[peft_type])}
    targets = {"target_modules": ["q_proj", "v_proj"]} if has_targets and peft_type not in OWN_TARGETS else {}
    return {"peft_type": peft_type} | targets | SMALL.get(peft_type, {})


def row(peft_type: str, turns: str) -> str:
    """The type's row in the table of `methods/README.md`."""
    kind = peft_types.kind_of(peft_type)
    remarks = [
        kind.refused,
        kind.note,
        kind.sizing.why_fixed and f"{kind.sizing.why_fixed[0].upper()}{kind.sizing.why_fixed[1:]}.",
    ]
    if kind.needs:
        remarks.append(f"Needs {' and '.join(f'`{name}`' for name in kind.needs)}.")
    remarks += [f"`{name}` is refused: PEFT {does}." for name, does in kind.ignores.items()]
    return f"| `{peft_type}` | {turns} | {' '.join(filter(None, remarks))} |"


def turned(peft_type: str) -> str:
    """What a budget does to the type on the small model: the field it turns, or ``native only``, or ``refused``."""
    params, counts = natural(peft_type), Counts(SHAPE)
    recipe = Recipe(name="tried", title="Tried", method="peft", params=params)
    try:
        counts.trainable(PEFT, params)
    except BenchError:
        return "refused"
    knob = PEFT.knob_of(params)
    if knob is None:
        with pytest.raises(BudgetError, match="has a fixed size"):
            fit_budget(recipe, SHAPE, "5k", counts=counts)
        return "native only"
    third = PEFT.at(params, 3 * PEFT.sizing(params).unit)
    target = counts.trainable(PEFT, third)
    fit = fit_budget(recipe, SHAPE, str(target), counts=counts)
    assert (fit.trainable, fit.params[knob]) == (target, third[knob])
    return f"`{knob}`"


@pytest.mark.parametrize("peft_type", TYPES)
def test_the_readme_says_what_a_budget_does_to_each_type_of_peft(peft_type: str) -> None:
    wanted = row(peft_type, turned(peft_type))
    assert wanted in README.splitlines(), (
        f"PEFT {version('peft')} has the type {peft_type}, and methods/README.md has not this row of it:\n{wanted}\n"
        f"What is known of a type stands in mosld_bench/methods/peft_types.py."
    )


def test_the_readme_has_no_type_that_peft_lacks() -> None:
    assert set(re.findall(r"^\| `([A-Z0-9_]+)` \|", README, re.MULTILINE)) == set(TYPES)
    assert set(peft_types.KINDS) == set(TYPES)


@pytest.mark.parametrize(("peft_type", "setting", "value"), peft_types.REFUSED_SETTINGS)
def test_settings_that_make_another_method_are_refused_with_the_reason(
    peft_type: str, setting: str, value: str | None
) -> None:
    reason = peft_types.REFUSED_SETTINGS[peft_type, setting, value]
    shown = f"`{setting}`: {value}" if value else f"`{setting}`"
    assert f"| `{peft_type}` | {shown} | {reason[0].upper()}{reason[1:]}. |" in README.splitlines()
    with pytest.raises(BenchError, match=re.escape(f"{reason} ({setting}: ")):
        PEFT.attach(build(SHAPE), natural(peft_type) | {setting: value or [1]})


@pytest.mark.parametrize("peft_type", [name for name in TYPES if not peft_types.kind_of(name).refused])
def test_each_type_trains_what_was_counted_on_a_base_in_bfloat16_too(peft_type: str) -> None:
    """PEFT takes adapters of 16 bits to float32, and lets train what does not: AdaLoRA's numbers of ranks."""
    params = natural(peft_type)
    model = PEFT.attach(build(SHAPE).bfloat16().requires_grad_(False), params)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) == Counts(SHAPE).trainable(PEFT, params)


@pytest.mark.slow
@pytest.mark.parametrize("peft_type", [name for name in TYPES if not peft_types.kind_of(name).refused])
def test_what_is_not_refused_keeps_the_contract(peft_type: str) -> None:
    assert check_method(PEFT, natural(peft_type), config=SHAPE)
