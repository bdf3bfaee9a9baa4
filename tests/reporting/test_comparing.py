"""Which rows of two sides meet, and what is said of those that are not alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mosld_bench.reporting.comparing.sides import Kind, Side, SideReader, matched
from mosld_bench.reporting.comparing.unlike import EFFECTS, Unlike, rows_differ, trials_differ
from mosld_bench.spec.selection import GeneralSweep
from mosld_bench.spec.trial import EvaluateSpec, GeneralData, ModelSpec, TrainSpec
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY
from tests.support.synthetic import RECIPES, make_records, make_study, make_trials

IN, OUT = ("everyday", "stories"), ("routes",)
MODELS = [ModelSpec(name=name, revision="0123456789ab") for name in ("small", "large")]


def side(root: Path, name: str, recipes: tuple[str, ...] = ("base", "lora", "mosld"), **changes: Any) -> Side:
    """``name``, or the whole folder where it is empty, of the records of a made-up study."""
    make_records(root, recipes, **{"in_domain": IN, "out_of_domain": OUT, **changes})
    folder = root / "results" / "synthetic"
    return SideReader(Workspace(REPOSITORY, root), str(folder)).read(f"{name}@{folder}" if name else str(folder))


def met(ours: Side, theirs: Side) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    pairs, _ = matched(ours, theirs)
    return [(blocks(pair.ours.row), blocks(pair.theirs.row)) for pair in pairs]


def blocks(row: Any) -> tuple[str, ...]:
    condition = row.condition
    return (row.recipe.name, condition.setting, condition.budget, condition.model, str(condition.general))


def test_rows_meet_on_one_model(tmp_path: Path) -> None:
    several = side(tmp_path, "lora", models=MODELS)
    one = side(tmp_path / "one", "mosld", models=MODELS[1:])
    assert met(several, one) == [
        (("lora", "mixture", "60000", "large", "0"), ("mosld", "mixture", "60000", "", "0")),
    ]
    renamed = side(tmp_path / "renamed", "mosld", models=[ModelSpec(name="other", revision="0123456789ab")])
    assert len(met(one, renamed)) == 1, "two studies of one model each are compared, and the models named"
    (pair,), _ = matched(one, renamed)
    (unlike,) = rows_differ(pair.ours.row, pair.theirs.row, *(member.source.analysis.study for member in pair.members))
    assert unlike[:3] == ("model.name", "large", "other")


def test_rows_meet_with_as_much_general_data(tmp_path: Path) -> None:
    general = GeneralSweep(task="openorca", items=(0, 1000))
    ours, theirs = side(tmp_path, "lora", general=general), side(tmp_path / "there", "mosld")
    assert [row[-1] for row, _ in met(ours, theirs)] == ["0"]


def test_rows_without_a_budget_meet_every_budget(tmp_path: Path) -> None:
    budgets = ("60000", "120000")
    recipes = ("base", "full", "lora")
    row, full, base = (side(tmp_path, name, recipes, budgets=budgets) for name in ("lora", "full", "base"))
    assert [theirs[2] for _, theirs in met(full, row)] == list(budgets)
    assert [ours[2] for ours, _ in met(row, base)] == list(budgets)
    assert len(met(full, base)) == 1


def test_whole_folders_meet_row_by_row(tmp_path: Path) -> None:
    ours = side(tmp_path, "", budgets=("60000", "120000"))
    theirs = side(tmp_path / "there", "", ("base", "mosld", "mola"), budgets=("120000", "60000"))
    assert (ours.kind, theirs.kind) == (Kind.FOLDER, Kind.FOLDER)
    pairs = met(ours, theirs)
    assert all(row == other for row, other in pairs)
    assert [(row[0], row[2]) for row, _ in pairs] == [("base", "native"), ("mosld", "60000"), ("mosld", "120000")]
    _, left = matched(ours, theirs)
    assert [sentence.partition(" has ")[2].split(" ")[0] for sentence in left] == ["lora", "mola"]


def test_every_field_of_a_protocol_is_told_with_what_it_means() -> None:
    (ours,) = make_trials(make_study(seeds=(0,), evaluate=EvaluateSpec(limit=1)), [RECIPES["lora"]])
    theirs = ours.model_copy(
        update={
            "model": ModelSpec(name="other", revision="fedcba987654"),
            "train": TrainSpec(
                epochs=2, batch_size=1, learning_rate=1, warmup_steps=1, warmup_limit=0.5, schedule="cosine",
                weight_decay=1, gradient_clip=None, task_items=1, max_length=9, micro_tokens=1, dtype="bfloat16",
                gradient_checkpointing=True, validation_fraction=0, validation_items=0, split_seed=1,
            ),
            "evaluate": EvaluateSpec(sample_seed=1, split="validation", text="prose"),
            "task_digests": dict.fromkeys(ours.task_digests, "ffffffff"),
            "general": GeneralData(task="openorca", items=1),
        }
    )  # fmt: skip
    assert trials_differ(ours, ours) == []
    fields = {field.name: field for field in trials_differ(ours, theirs)}
    assert {f"train.{name}" for name in TrainSpec.model_fields} <= fields.keys()
    assert {f"evaluate.{name}" for name in EvaluateSpec.model_fields} <= fields.keys()
    assert {f"tasks.{task}" for task in ours.scored_on} <= fields.keys()
    assert {"model.name", "model.revision", "general.task"} <= fields.keys()
    assert all(field.effect for field in fields.values())
    assert "moves no score" in fields["evaluate.text"].effect
    assert "samples of items" in fields["evaluate.limit"].effect


@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_is_a_sentence(name: str) -> None:
    effect = Unlike(f"{name}.of_it", 1, 2).effect
    assert effect == Unlike(name, 1, 2).effect
    assert effect[0].isupper()
    assert effect.endswith(".")
