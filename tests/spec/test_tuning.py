"""tuning.yaml: it comes back as it was, is refused once changed or stale, and gives a study its learning rates."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.errors import BadFileError, BenchError
from mosld_bench.spec.expand import identified
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.search import kind_of, search_study
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Trial
from mosld_bench.spec.tuning import RateSource, Run, TunedRecipe, Tuning, read_tuning
from mosld_bench.spec.workspace import Workspace
from tests.spec.tiny import tiny_study


def runs(name: str, losses: dict[float, tuple[float | None, float | None]]) -> tuple[Run, ...]:
    """A run a factor and seed, with the loss at its end; None for one that was stopped."""
    return tuple(
        Run.model_validate(
            {
                "trial": f"{name}-{factor:g}-s{seed}", "factor": factor, "seed": seed, "steps": 4 if loss else 1,
                "ended": "finished" if loss else "stopped", "at": (4,) if loss else (1,), "losses": (loss or 9.0,),
                "rivals": () if loss else (1.0, 2.0, 3.0), "score": loss and 1 / loss,
            }
        )
        for factor, by_seed in losses.items()
        for seed, loss in zip((1000, 1001), by_seed, strict=True)
    )  # fmt: skip


def tuning_of(root: Path, **changes: Any) -> Tuning:
    """Of the study `tiny`: LoRA is best at 2 by 0.1 nats, MoSLD has no second factor that counts."""
    workspace, study = Workspace(root, root), tiny_study(root)
    (first, *_) = search_study(study, ["lora"]).plan(workspace)
    recipes = load_recipes(workspace.methods)
    found = {
        "lora": {1.0: (1.1, 1.3), 2.0: (1.0, 1.2), 4.0: (None, 1.0)},
        "mosld": {1.0: (1.0, 1.0), 2.0: (None, None)},
    }
    tuned = {
        name: {"chosen": 2.0, "runner_up": 1.0, "margin": 0.1, "by_score": 2.0} if name == "lora" else {"chosen": 1.0}
        for name in found
    }
    content: dict[str, Any] = {
        "study": "tiny",
        "results": "tiny-tuning",
        "protocol": first.protocol,
        "model": identified(study.models[0]).model_copy(update={"folder": None}),
        "budget": study.budgets[0],
        "in_domain": first.task_digests,
        "train": first.train,
        "seeds": (1000, 1001),
        "waves": ((1.0, 2.0, 4.0),),
        "steps": 4,
        "noise": 0.02,
        "degrees_of_freedom": 1,
        "recipes": {
            name: TunedRecipe.model_validate(
                {"recipe": kind_of(recipes[name]), **tuned[name], "runs": runs(name, found[name])}  # type: ignore[arg-type]
            )
            for name in found
        },
    }
    return Tuning.of(**content | changes)


def write(root: Path, tuning: Tuning) -> Path:
    path = root / "reports" / "tiny" / "tuning.yaml"
    path.write_text(tuning.text(), encoding="utf-8")
    return path


def including(root: Path, line: str = "tuning: tuning.yaml") -> Path:
    """The study.yaml of `tiny` with a line more."""
    path = root / "reports" / "tiny" / "study.yaml"
    path.write_text(f"{path.read_text()}{line}\n")
    return path


def factors(trials: list[Trial], rate: str = "chosen") -> dict[str, float]:
    return {trial.recipe.name: trial.recipe.learning_rate_scale for trial in trials if trial.rate == rate}


# The file


def test_a_file_comes_back_as_it_was_and_has_a_line_a_run(tiny: Path) -> None:
    tuning = tuning_of(tiny)
    path = write(tiny, tuning)
    assert read_tuning(path) == tuning
    text = path.read_text()
    assert all(text.count(run.trial) == 1 for found in tuning.recipes.values() for run in found.runs)
    assert max(map(len, text.splitlines())) < 400
    assert tuning_of(tiny).text() == text


@pytest.mark.parametrize(
    "digits", ["05549969", "12345e67", "00000000", "1e5", "0x123456", "null", "1_000", "no", "2026-01-01"]
)
def test_text_that_reads_like_another_value_comes_back_as_text(digits: str, tiny: Path) -> None:
    """One digest in a hundred has no letter, or no other than an e."""
    tuning = tuning_of(tiny, protocol=digits, in_domain={digits: digits}, results=digits)
    assert read_tuning(write(tiny, tuning)) == tuning


def test_what_counts_are_the_factors_that_finished_with_every_seed(tiny: Path) -> None:
    tuning = tuning_of(tiny)
    lora, mosld = tuning.recipes["lora"], tuning.recipes["mosld"]
    assert lora.means() == pytest.approx({1.0: 1.2, 2.0: 1.1})
    assert lora.scores() == pytest.approx({1.0: (1 / 1.1 + 1 / 1.3) / 2, 2.0: (1 + 1 / 1.2) / 2})
    assert (lora.agrees, mosld.agrees) == (True, None)
    assert (tuning.separated("lora"), tuning.separated("mosld")) == (True, None)
    assert tuning.factors == (1.0, 2.0, 4.0)
    assert [lora.factor("chosen"), lora.factor("runner_up"), mosld.factor("runner_up")] == [2.0, 1.0, None]


@pytest.mark.parametrize(
    ("old", "new"),
    [("chosen: 2.0", "chosen: 1.0"), ("noise: 0.02", "noise: 0.2"), ('"losses": [1.1]', '"losses": [1.0]')],
)
def test_a_file_that_was_changed_by_hand_is_refused(old: str, new: str, tiny: Path) -> None:
    path = write(tiny, tuning_of(tiny))
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BadFileError, match=r"tuning\.yaml was changed after the search wrote it.*learning_rate_scales"):
        Study.load(including(tiny))


def test_a_file_that_is_not_there_or_no_search_is_told(tiny: Path) -> None:
    path = including(tiny)
    with pytest.raises(BadFileError, match=r"tuning\.yaml is not there.*mosld-bench tune STUDY"):
        Study.load(path)
    (path.parent / "tuning.yaml").write_text("chosen: 2\n")
    with pytest.raises(BadFileError, match=r"tuning\.yaml has \d+ problem"):
        Study.load(path)


# In a study


def test_a_study_takes_its_factors_from_the_search_and_hand_written_ones_first(tiny: Path) -> None:
    write(tiny, tuning_of(tiny))
    workspace, path = Workspace(tiny, tiny), including(tiny)
    study = Study.load(path, {"recipes": ["lora", "mosld", "mola"]})
    assert factors(study.plan(workspace)) == {"base": 1, "lora": 2, "mosld": 1, "mola": 1}
    assert [study.rate_source(name) for name in ("lora", "mosld", "mola")] == [
        RateSource.SEARCH, RateSource.SEARCH, RateSource.RECIPE,
    ]  # fmt: skip
    by_hand = Study.load(path, {"learning_rate_scales": {"lora": 3}})
    assert factors(by_hand.plan(workspace)) == {"base": 1, "lora": 3, "mosld": 1}
    assert by_hand.rate_source("lora") is RateSource.HAND
    without = Study.load(path, {"tuning": None})
    assert factors(without.plan(workspace)) == {"base": 1, "lora": 1, "mosld": 1}
    assert without.rate_source("lora") is RateSource.RECIPE


def test_a_factor_of_a_search_gives_the_trial_that_the_same_factor_by_hand_gives(tiny: Path) -> None:
    write(tiny, tuning_of(tiny))
    workspace, path = Workspace(tiny, tiny), including(tiny)
    found = [trial.id for trial in Study.load(path).plan(workspace)]
    by_hand = Study.load(path, {"tuning": None, "learning_rate_scales": {"lora": 2}})
    assert [trial.id for trial in by_hand.plan(workspace)] == found


def test_a_file_is_looked_for_from_the_study_that_names_it(tiny: Path) -> None:
    write(tiny, tuning_of(tiny))
    including(tiny)
    other = tiny / "reports" / "other" / "study.yaml"
    other.parent.mkdir()
    other.write_text("include: ../tiny/study.yaml\nseeds: [7]\n")
    assert factors(Study.load(other).plan(Workspace(tiny, tiny)))["lora"] == 2
    other.write_text("include: ../tiny/study.yaml\ntuning: ../tiny/tuning.yaml\n")
    assert Study.load(other).tuning == tuning_of(tiny)


def test_a_study_that_was_noted_with_its_search_is_the_same_study(tiny: Path) -> None:
    write(tiny, tuning_of(tiny))
    study = Study.load(including(tiny))
    assert Study.model_validate(study.model_dump(mode="json")) == study


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"train.steps": 5}, r"train\.steps is 4 there and 5 here"),
        ({"train.schedule": "cosine"}, r"train\.schedule is linear there and cosine here"),
        ({"in_domain": ["copy"]}, "the in-domain tasks differ in count"),
        ({"model": {"name": "embedded"}}, "the model is .* there and embedded"),
    ],
)
def test_a_search_under_another_protocol_is_refused(change: dict[str, object], why: str, tiny: Path) -> None:
    write(tiny, tuning_of(tiny))
    study = Study.load(including(tiny), change)
    with pytest.raises(BenchError, match=rf"another protocol \({why}.*mosld-bench tune.*--set tuning=null"):
        study.plan(Workspace(tiny, tiny))


@pytest.mark.parametrize("change", [{"seeds": [7]}, {"out_of_domain": []}, {"evaluate.limit": 3}, {"budgets": ["9k"]}])
def test_what_cannot_move_a_rate_leaves_a_search_valid(change: dict[str, object], tiny: Path) -> None:
    write(tiny, tuning_of(tiny))
    assert factors(Study.load(including(tiny), change).plan(Workspace(tiny, tiny)))["lora"] == 2


def test_a_recipe_that_is_another_one_now_is_refused(tiny: Path) -> None:
    write(tiny, tuning_of(tiny))
    recipe = tiny / "methods" / "lora.yaml"
    recipe.write_text(f"{recipe.read_text()}learning_rate_scale: 5\n")
    assert factors(Study.load(including(tiny)).plan(Workspace(tiny, tiny)))["lora"] == 2, "its own rate counts no more"
    text, changed = re.subn(r"lora_alpha: \d+", "lora_alpha: 3", recipe.read_text())
    assert changed
    recipe.write_text(text)
    with pytest.raises(BenchError, match="'lora' was changed after its learning rate was searched for"):
        Study.load(tiny / "reports" / "tiny" / "study.yaml").plan(Workspace(tiny, tiny))


# The runner-up rates


def test_runner_up_rates_are_trials_and_a_block_of_their_own(tiny: Path) -> None:
    write(tiny, tuning_of(tiny))
    workspace, path = Workspace(tiny, tiny), including(tiny)
    plain = Study.load(path, {"recipes": ["lora"]}).plan(workspace)
    both = Study.load(path, {"recipes": ["lora"], "rates": ["chosen", "runner_up"]}).plan(workspace)
    assert [trial.id for trial in both[: len(plain)]] == [trial.id for trial in plain], "no id of the others changes"
    (more,) = both[len(plain) :]
    assert (more.recipe.name, more.recipe.learning_rate_scale, more.rate) == ("lora", 1.0, "runner_up")
    assert more.condition == plain[-1].condition._replace(rate="runner_up")
    assert more.protocol == plain[-1].protocol
    assert len({trial.id for trial in both}) == len(both)
    assert Trial.model_validate_json(more.model_dump_json()).condition == more.condition
    parts = [{"recipes": ["lora", "mosld"]}, {"recipes": ["lora"], "rates": ["runner_up"]}]
    planned = Study.load(path, {"parts": parts}).plan(workspace)
    assert factors(planned) == {"base": 1, "lora": 2, "mosld": 1}
    assert factors(planned, "runner_up") == {"lora": 1}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"recipes": ["mosld"]}, "of 'mosld', but the search found no second factor"),
        ({"recipes": ["mola"]}, "of 'mola', but its factor is the recipe's own"),
        ({"recipes": ["lora"], "learning_rate_scales": {"lora": 3}}, "of 'lora', but its factor is written by hand"),
        ({"recipes": ["lora"], "tuning": None}, "of 'lora', but its factor is the recipe's own"),
    ],
)
def test_a_runner_up_that_nobody_found_is_refused(change: dict[str, object], why: str, tiny: Path) -> None:
    write(tiny, tuning_of(tiny))
    study = Study.load(including(tiny), {"rates": "runner_up", **change})
    with pytest.raises(BenchError, match=f"runner_up asks for the next best learning rate {why}"):
        study.plan(Workspace(tiny, tiny))


def test_a_score_on_held_out_items_takes_what_it_needs(tiny: Path) -> None:
    split = {"evaluate.split": "validation"}
    assert tiny_study(tiny, out_of_domain=[], **split).evaluate.split == "validation"
    for change in (
        {},
        {"out_of_domain": [], "train.validation_fraction": 0},
        {"out_of_domain": [], "train.validation_items": 0},
    ):
        with pytest.raises(BadFileError, match=r"evaluate\.split: validation"):
            tiny_study(tiny, **change, **split)
    with pytest.raises(BadFileError, match="limit is of test items"):
        tiny_study(tiny, out_of_domain=[], **split, **{"evaluate.limit": 3})
