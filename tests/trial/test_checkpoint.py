"""A training that is broken off goes on from its checkpoint, and ends with the same weights bit for bit."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from mosld_bench.errors import BenchError
from mosld_bench.methods import registry
from mosld_bench.methods.base import Method
from mosld_bench.methods.builtin import PeftMethod
from mosld_bench.methods.live import attached_copy, seed_generators
from mosld_bench.records.record import TrainInfo
from mosld_bench.records.store import Store
from mosld_bench.spec.recipe import Recipe, load_recipes
from mosld_bench.spec.trial import TrainSpec
from mosld_bench.trial import checkpoint
from mosld_bench.trial.checkpoint import CheckpointPlace, Checkpoints, checkpoints_of, identity_of
from mosld_bench.trial.execute import execute
from mosld_bench.trial.router_log import RouterLog
from mosld_bench.trial.session import Progress, Session
from mosld_bench.trial.train import train
from tests.conftest import REPOSITORY
from tests.scheduling.test_executor import PLANNED
from tests.support.models import build, config
from tests.support.runs import prepare, timeless
from tests.trial.test_train import encoded

RECIPES = load_recipes(REPOSITORY / "methods")
STEPS = 6

#: The recipes of `all`, and others that keep something from step to step: rank to give, a bias to move, weights held.
MOVING = [name for name, recipe in RECIPES.items() if recipe.group == "main"]
OTHERS = ["adalora", "flylora", "mosld-update", "r-lora", "pissa"]


class BrokenOffError(Exception):
    """The training ends here, as if its process had died."""


class At(Checkpoints):
    """Leaves a checkpoint after one step alone."""

    def __init__(self, file: Path, step: int, said: list[str], identity: str = "same") -> None:
        super().__init__(file, lambda: identity, every_seconds=0.0, say=said.append)
        self.step = step

    def after(self, step: int, moving: checkpoint.Moving, *, last: bool) -> float:
        return super().after(step, moving, last=last) if step == self.step else 0.0


class Trained(NamedTuple):
    model: nn.Module
    info: TrainInfo
    routers: RouterLog | None
    drawn: Tensor  # what the generators give next

    def weights(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict())


def trained(
    recipe: Recipe,
    checkpoints: Checkpoints | None = None,
    *,
    until: int = STEPS,
    method: Method | None = None,
    **more: Any,
) -> Trained:
    """A small model trained as `recipe` says; raises BrokenOffError in the step behind ``until``."""
    method = method or registry.get(recipe.method)
    base = build(config())
    model = attached_copy(method, base, recipe.params, seed=1).model
    routers = RouterLog.of(model)

    def progress(step: int, steps: int, loss: float) -> None:
        if step > until:
            raise BrokenOffError

    info = train(
        model,
        method,
        examples=encoded(),
        validation=encoded(6, seed=1),
        spec=TrainSpec(steps=STEPS, batch_size=4, learning_rate=1e-2, micro_tokens=64, warmup_steps=2, **more),
        learning_rate=1e-2,
        seed=3,
        pad=0,
        optimizer=recipe.optimizer,
        routers=routers,
        progress=progress,
        checkpoints=checkpoints,
        base=base,
    )
    return Trained(model, info, routers, torch.rand(3))


def broken_off_and_gone_on_with(recipe: Recipe, step: int, folder: Path, **more: Any) -> Trained:
    """The same, ended while the step behind ``step`` is made and begun again in generators that stand elsewhere."""
    file, said = folder / "checkpoint", list[str]()
    with pytest.raises(BrokenOffError):
        trained(recipe, At(file, step, said), until=step, **more)
    seed_generators(99)
    again = At(file, 0, said)
    result = trained(recipe, again, **more)
    assert said == [f"goes on from its checkpoint after step {step}"]
    assert again.from_step == step
    return result


def assert_same(one: Trained, other: Trained) -> None:
    weights = other.weights()
    assert one.weights().keys() == weights.keys()
    assert [name for name, value in one.weights().items() if not torch.equal(value, weights[name])] == []
    assert torch.equal(one.drawn, other.drawn)
    assert timeless(one.info.model_dump(mode="json", exclude={"tokens_per_second"})) == timeless(
        other.info.model_dump(mode="json", exclude={"tokens_per_second"})
    )
    if one.routers is not None:
        assert other.routers is not None
        first, second = one.routers.frame(), other.routers.frame()
        assert first is not None
        assert second is not None
        assert first.equals(second)


@pytest.mark.parametrize("name", [*MOVING, *OTHERS])
def test_a_training_broken_off_at_any_step_ends_as_one_that_was_not(name: str, tmp_path: Path) -> None:
    recipe, step = RECIPES[name], random.Random(name).randrange(1, STEPS)
    if name == "adalora":  # takes rank away from step 2 on, and ends with it before the last
        params = recipe.params | {"tinit": 1, "tfinal": 2, "deltaT": 1}
        recipe = recipe.model_copy(update={"params": params})
    whole = trained(recipe)
    assert_same(whole, broken_off_and_gone_on_with(recipe, step, tmp_path))
    start = attached_copy(registry.get(recipe.method), build(config()), recipe.params, seed=1).model.state_dict()
    assert any(not torch.equal(value, start[key]) for key, value in whole.weights().items())


LORA = RECIPES["lora"]


def kept(folder: Path, step: int = 3, identity: str = "same") -> Path:
    """The checkpoint of a training of LoRA that was broken off."""
    file = folder / "checkpoint"
    with pytest.raises(BrokenOffError):
        trained(LORA, At(file, step, [], identity), until=step)
    return file


def test_what_is_of_another_training_or_damaged_is_not_gone_on_with(tmp_path: Path) -> None:
    """Each time the training begins anew and says why."""
    whole, file = trained(LORA), kept(tmp_path)
    content, said = file.read_bytes(), list[str]()

    def reason(identity: str = "same", recipe: Recipe = LORA) -> str:
        said.clear()
        again = At(file, 0, said, identity)
        result = trained(recipe, again)
        assert again.from_step == 0
        if recipe is LORA:
            assert_same(whole, result)
        return said[0]

    assert reason("another") == "begins anew, since its checkpoint is of other code, settings or data"
    wider = LORA.model_copy(update={"params": LORA.params | {"r": 4}})
    assert "the model has other parameters or buffers" in reason(recipe=wider)
    for damaged in (content[:-1], content[: len(content) // 2], b"", b"{}", b"\xff" * 100):
        file.write_bytes(damaged)
        assert reason().startswith("begins anew, since its checkpoint cannot be read (")
    file.write_bytes(content.replace(b'\\"step\\": 3', b'\\"stop\\": 3'))
    with pytest.raises(BenchError, match=r"cannot be put back .* It was removed"):
        trained(LORA, At(file, 0, said))
    assert not file.exists()


def test_what_cannot_be_written_is_said_and_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    said: list[str] = []
    assert_same(trained(LORA), trained(LORA, At(tmp_path / "file" / "checkpoint", 2, said)))
    (line,) = said
    assert line.startswith(f"no checkpoint could be written to {tmp_path / 'file'} (")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


class KeepsSomething(PeftMethod):
    """LoRA with something of its own from step to step, of which it does not tell."""

    training_state = Method.training_state

    def before_step(self, model: nn.Module) -> None:
        pass


def test_a_method_that_may_keep_something_elsewhere_begins_anew_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    trained(LORA, At(tmp_path / "checkpoint", 2, said), method=KeepsSomething())
    assert said == ["no checkpoints: its method does not say what it keeps from step to step (training_state)"]
    assert list(tmp_path.iterdir()) == []
    assert registry.get("base").training_state(build(config(layers=1))) == {}


class Clock:
    """A time that stands."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Writer(Checkpoints):
    """Takes ``cost`` seconds of `Clock` for each checkpoint, and notes when."""

    def __init__(self, file: Path, clock: Clock, *, every: float, cost: float) -> None:
        super().__init__(file, lambda: "", every_seconds=every, say=print)
        self.clock, self.cost_of_one, self.times = clock, cost, list[float]()

    def _write(self, step: int, moving: checkpoint.Moving) -> None:
        self.times.append(self.clock.now)
        self.clock.now += self.cost_of_one
        self._written = True


@pytest.mark.parametrize(
    ("every", "cost", "times"),
    [(25.0, 0.0, [30, 60, 90, 100]), (1000.0, 0.0, []), (25.0, 3.0, [30, 93, 106]), (1.0, 0.01, [*range(10, 110, 10)])],
)
def test_checkpoints_come_as_often_as_asked_and_take_a_twentieth_at_most(
    every: float, cost: float, times: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten steps of ten seconds; one more behind the last step, where there was one before."""
    clock = Clock()
    monkeypatch.setattr(checkpoint, "time", clock)
    writer = Writer(tmp_path / "checkpoint", clock, every=every, cost=cost)
    nothing: Any = None
    for step in range(1, 11):
        clock.now += 10
        writer.after(step, nothing, last=step == 10)
    assert [round(each) for each in writer.times] == times


def test_a_folder_that_a_machine_does_not_reach_has_no_checkpoints_there(tmp_path: Path) -> None:
    place, (trial, _) = CheckpointPlace(str(tmp_path), "study", 60.0), PLANNED[0]
    notes: list[str] = []
    assert checkpoints_of(None, trial, str, notes) is None
    assert notes == []
    assert checkpoints_of(place, trial, str, notes) is None
    (note,) = notes
    assert note.startswith("no checkpoints: ")
    assert note.endswith(f" does not reach {tmp_path}, so that a trial that is broken off there begins anew")
    place.mark()
    assert place.is_reached()
    assert checkpoints_of(place, trial, str, notes) is not None
    assert place.file(trial).parent == tmp_path / trial.study / trial.id
    other = CheckpointPlace(str(tmp_path), "study", 60.0)  # of a folder of the same name on another machine
    assert not other.is_reached()
    other.unmark()
    assert place.is_reached()
    place.unmark()
    assert not list((tmp_path / "study").iterdir())


def test_a_trial_goes_on_where_it_was_broken_off_and_its_record_is_the_same(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "MOST_SHARE", 1e9)
    _, ((trial, fit),), worker = prepare(tiny, recipes=["mosld"], frozen_base=False)
    store, shown = Store(tiny / "results"), list[Progress]()
    whole = execute(trial, Session(worker), fit)
    place = CheckpointPlace(str(store.results), trial.study, 1e-9)
    place.mark()
    session = Session(replace(worker, checkpoints=place))

    def watch(progress: Progress) -> None:
        shown.append(progress)
        if progress.phase == "training" and progress.step == 3 and len(shown) < 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(trial, session, fit, watch)
    file = store.checkpoint_file(trial)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    with safe_open(file, "pt") as content:
        assert json.loads(content.metadata()["notes"])["step"] == 2
    again = execute(trial, session, fit, watch)
    assert shown[-1].notes == (f"{trial.id}: goes on from its checkpoint after step 2",)
    assert again.record.meta_info["continued_from_step"] == 2
    assert again.adapter is not None
    assert again.adapter["adapter_model.safetensors"] == (whole.adapter or {})["adapter_model.safetensors"]
    assert again.record.metrics == whole.record.metrics
    assert again.router is not None
    assert whole.router is not None
    assert again.router.equals(whole.router)
    assert file.exists()
    file.with_name(f"{file.name}.123").write_text("left by a process that died")
    folder = store.write(again)
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("changed", ["seed", "fit", "code", "weights", "device", "items"])
def test_a_checkpoint_is_of_one_trial_size_code_weights_device_and_items(changed: str) -> None:
    (trial, fit), items = PLANNED[0], encoded(3)
    given: dict[str, Any] = {"code": {"version": 1}, "weights": "w", "device": "cuda:0", "items": items}
    same = identity_of(trial, fit, **given)
    assert same == identity_of(trial, fit, **given | {"device": "cuda:1"})
    other = {"code": {"version": 2}, "weights": "v", "device": "cpu", "items": items[::-1]}
    if changed in other:
        assert identity_of(trial, fit, **given | {changed: other[changed]}) != same
    elif changed == "fit":
        assert identity_of(trial, fit.model_copy(update={"params": {"r": 3}}), **given) != same
    else:
        assert identity_of(PLANNED[1].trial, fit, **given) != same
