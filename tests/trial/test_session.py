"""What a process keeps between its trials is what the first one found, whatever ran in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from mosld_bench.errors import BenchError
from mosld_bench.inputs.items import Encoded
from mosld_bench.methods import registry
from mosld_bench.methods.live import attached_copy
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.trial import Fit, ModelSpec, Resources, TrainSpec, Trial
from mosld_bench.trial.execute import execute
from mosld_bench.trial.session import Session, WorkerConfig
from mosld_bench.trial.train import train
from tests.conftest import REPOSITORY
from tests.support import intruders
from tests.support.intruders import ALLOWED, FAILING, FORBIDDEN, PARAMS, path
from tests.support.models import build, config, tokenizer
from tests.support.runs import prepare, timeless

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]

IDS = torch.arange(3, 35).view(2, 16)
TEXTS = [Encoded("letters", row, 4) for row in IDS.tolist()]


class Run(NamedTuple):
    """A recipe in a dtype."""

    method: str
    params: dict[str, Any]
    dtype: str = "float32"


def lora(**more: Any) -> Run:
    return Run("peft", PARAMS | more)


#: The recipes that ship, starts that are taken out of the base weights, and methods that reach beyond their own.
SHIPPED = {
    name: Run(recipe.method, recipe.params)
    for name, recipe in load_recipes(REPOSITORY / "methods").items()
    if recipe.group == "main" or name in ("base", "dora")  # the others are some of these with other numbers
}
STARTS = {
    "olora": lora(init_lora_weights="olora"),
    "pissa": lora(init_lora_weights="pissa"),
    "pissa-fast": lora(init_lora_weights="pissa_niter_2"),
    "olora-bfloat16": lora(init_lora_weights="olora")._replace(dtype="bfloat16"),
    "adalora": Run(
        "peft",
        {
            "peft_type": "ADALORA",
            "init_r": 4,
            "target_r": 2,
            "tinit": 1,
            "target_modules": ["q_proj", "v_proj"],
        },
    ),
}
INTRUDERS = {kind.__name__: Run(path(kind), PARAMS) for kind in [*ALLOWED, *FAILING]}
ALL = SHIPPED | STARTS | INTRUDERS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """A Llama of four layers on disk, so that a session can load it again."""
    folder = tmp_path_factory.mktemp("model")
    build(config(intermediate_size=32)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return ModelSpec(name=str(folder))


def session() -> Session:
    return Session(WorkerConfig(task_folders=(), resources=Resources()))


def outcome(run: Run, model: ModelSpec, session: Session) -> list[Tensor] | str:
    """Logits after attaching and after three steps, or the error; as a trial would get them in ``session``."""
    try:
        with session.lent(model, run.dtype, run.method) as base:
            method = registry.get(run.method)
            adapted = attached_copy(method, base.model, run.params, seed=3).model
            base.check(run.method, "attaching")
            with torch.no_grad():
                first = adapted.eval()(input_ids=IDS).logits
            if any(parameter.requires_grad for parameter in adapted.parameters()):
                spec = TrainSpec(steps=3, batch_size=2, dtype=run.dtype)
                train(adapted, method, examples=TEXTS, validation=[], spec=spec, learning_rate=1e-2, seed=0, pad=0)
            base.check(run.method, "training")
            with torch.no_grad():
                return [first, adapted.eval()(input_ids=IDS).logits]
    except (BenchError, RuntimeError) as error:
        return str(error)


def same(first: list[Tensor] | str, second: list[Tensor] | str) -> bool:
    """To the bit."""
    if isinstance(first, str) or isinstance(second, str):
        return first == second
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def every_pair(names: Sequence[str]) -> Iterator[str]:
    """The shortest sequence in which each name follows each one, itself too: Lyndon words of one and two letters."""
    for place, name in enumerate(names):
        yield name
        for later in names[place + 1 :]:
            yield from (name, later)
    yield names[0]


Alone = Callable[[str], list[Tensor] | str]


@pytest.fixture(scope="module")
def alone(model: ModelSpec) -> Alone:
    """What the run of a name comes to in a session of its own."""
    return cache(lambda name: outcome(ALL[name], model, session()))


def assert_independent(names: Sequence[str], model: ModelSpec, alone: Alone, part: slice = slice(None)) -> None:
    """Each of ``names`` comes to the same in a fresh process as after each other one; ``part`` of these pairs."""
    failing = {kind.__name__ for kind in FAILING}
    assert {name for name in names if isinstance(alone(name), str)} == failing & set(names)
    shared, before = session(), None
    for name in list(every_pair(names))[part]:
        assert same(outcome(ALL[name], model, shared), alone(name)), f"{name} after {before}"
        before = name


def test_a_sequence_has_every_pair_once() -> None:
    walk = list(every_pair("abcd"))
    assert len(walk) == 17
    assert len(set(pairwise(walk))) == 16


@pytest.mark.parametrize("among", [
    ["lora", "mosld", "olora", "WritesBehindTorch"],
    ["full", "prefix-tuning", "ChangesConfig", "SeedsGenerators", "LeavesHook"],
])  # fmt: skip
def test_what_a_method_comes_to_does_not_depend_on_what_ran_before(
    among: list[str], model: ModelSpec, alone: Alone
) -> None:
    assert_independent(among, model, alone)


@pytest.mark.slow
@pytest.mark.parametrize("quarter", range(4))
def test_what_any_method_comes_to_does_not_depend_on_which_ran_before(
    quarter: int, model: ModelSpec, alone: Alone
) -> None:
    pairs = len(ALL) ** 2
    assert_independent(list(ALL), model, alone, slice(quarter * pairs // 4, (quarter + 1) * pairs // 4 + 1))


@pytest.mark.parametrize("intruder", FORBIDDEN, ids=lambda kind: kind.__name__)
def test_what_is_not_its_own_is_found_in_a_method_s_hands(intruder: type, model: ModelSpec) -> None:
    changed, deed = FORBIDDEN[intruder]
    said = outcome(INTRUDERS[intruder.__name__], model, session())
    assert isinstance(said, str)
    assert said.startswith(f"The method 'tests.support.intruders:{intruder.__name__}' changed {changed} by {deed}. ")


def test_a_start_taken_out_of_the_base_weights_costs_what_it_writes_and_no_more(model: ModelSpec) -> None:
    with session().lent(model, "float32", "peft") as base:
        adapted = attached_copy(registry.get("peft"), base.model, STARTS["olora"].params, seed=0).model
        shared = {parameter.data_ptr() for parameter in base.model.parameters()}
        own = {name for name, parameter in adapted.named_parameters() if parameter.data_ptr() not in shared}
    assert {name.split(".")[-3] for name in own if name.endswith("base_layer.weight")} == {"q_proj", "v_proj"}
    assert all("base_layer" in name or "lora_" in name for name in own)


def trials(root: Path, *names: str, **params: dict[str, Any]) -> dict[str, tuple[Trial, Fit, WorkerConfig]]:
    """Trials of the tiny study by their recipes' names; ``params``: name of a new recipe -> its file's content."""
    for name, content in params.items():
        lines = "".join(f"  {key}: {value!r}\n" for key, value in content["params"].items())
        text = f"title: {name}\nmethod: {content['method']!r}\nparams:\n{lines}"
        (root / "methods" / f"{name}.yaml").write_text(text)
    _, planned, settings = prepare(
        root, recipes=[*names, *params], settings=["mixture"], budgets=["native"], frozen_base=True
    )
    return {trial.recipe.name: (trial, fit, settings) for trial, fit in planned}


def test_records_do_not_depend_on_what_ran_before_in_the_worker(tiny: Path) -> None:
    """Written records: of LoRA and of the frozen base, alone, after OLoRA, and after a method that does not behave."""
    planned = trials(
        tiny, "lora", olora={"method": "peft", "params": STARTS["olora"].params},
        intruder={"method": path(intruders.WritesBehindTorch), "params": PARAMS},
    )  # fmt: skip
    settings = planned["lora"][2]

    def record(name: str, session: Session) -> Any:
        trial, fit, _ = planned[name]
        return timeless(execute(trial, session, fit).record.model_dump(mode="json"))

    alone = {name: record(name, Session(settings)) for name in ("base", "lora")}
    together = Session(settings)
    for name in ("olora", "lora", "intruder", "base", "lora"):
        found = record(name, together)
        if name == "intruder":
            assert found["status"] == "failed"
            assert "changed the weight model.layers.0.mlp.up_proj.weight of the shared base model" in found["error"]
        elif name in alone:
            assert found == alone[name], name
