"""Which trials are run: what is recorded, what other studies have, and what other weights forbid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from pypdf import PdfReader

from mosld_bench import pipeline
from mosld_bench.display import run_sentences
from mosld_bench.errors import BenchError
from mosld_bench.inputs.models import weights_source
from mosld_bench.methods import MixtureMethod
from mosld_bench.records import method_code
from mosld_bench.records.store import Store
from mosld_bench.scheduling import Plan
from mosld_bench.scheduling.reuse import Missing, Weights, differing, missing
from mosld_bench.spec.trial import PlannedTrial
from mosld_bench.spec.workspace import Workspace
from tests.conftest import bench
from tests.support.runs import prepare, run_inline

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

NOTED = {"source": "hub", "revision": "main"}
HASHED = {**NOTED, "sha256": "00ff"}


def left(
    planned: list[PlannedTrial], root: Path, overwrite: str = "only-missing", weights: Weights | None = None
) -> tuple[list[PlannedTrial], Mapping[str, int]]:
    """What of ``planned`` is missing, where ``weights`` are those of every model; without what is said of it."""
    names = {trial.model.name for trial, _ in planned}
    store = Store(root / "results")
    return missing(planned, store, overwrite=overwrite, weights=dict.fromkeys(names, weights) if weights else {})[:2]


def test_overwrite(tiny: Path) -> None:
    _, planned, config = prepare(tiny, recipes=["lora"])
    assert left(planned, tiny, "never") == (planned, {})
    run_inline(planned[:1], config, tiny / "results")
    assert left(planned, tiny) == (planned[1:], {})
    assert left(planned, tiny, "always") == (planned, {})
    with pytest.raises(BenchError) as refused:
        left(planned, tiny, "never")
    assert "--overwrite never, but 1 of 2 trials have a record" in str(refused.value)
    assert f"the first {planned[0].trial.id}." in str(refused.value)


def test_a_budget_named_after_a_recipe_follows_it(tiny: Path) -> None:
    """A record of another size under the same trial is not taken for the one that is planned now."""
    overrides = {"recipes": ["lora"], "frozen_base": False, "budgets": ["mosld-r4"]}
    _, planned, config = prepare(tiny, **overrides)
    run_inline(planned, config, tiny / "results")
    assert left(planned, tiny) == ([], {})
    path = tiny / "methods" / "mosld.yaml"
    path.write_text(path.read_text().replace("experts: [2, 4, 6, 8]", "experts: [2, 4, 8, 8]"))
    _, changed, _ = prepare(tiny, **overrides)
    assert [trial.id for trial, _ in changed] == [trial.id for trial, _ in planned]
    assert changed[0].fit.target != planned[0].fit.target
    assert left(changed, tiny) == (changed, {})


def test_a_trial_that_another_study_has_is_taken_and_not_run(tiny: Path) -> None:
    _, planned, config = prepare(tiny, recipes=["lora"])
    originals = run_inline(planned, config, tiny / "results")
    (tiny / "reports" / "more").mkdir()
    (tiny / "reports" / "more" / "study.yaml").write_text("include: ../tiny/study.yaml\nquestion: And more?\n")
    root, flags = ("--root", str(tiny), "--executor", "inline"), ("--methods", "lora,mosld")
    done = bench("run", "more", *flags, *root)
    assert done.returncode == 0, done.stderr
    assert "more: 3 trials, 2 recorded, 2 of them taken from tiny, 1 to run" in done.stdout
    records = {record.trial_id: record for record in Store(tiny / "results").records("more")}
    for original in originals:
        copy = records[original.record.trial_id]
        assert (copy.trial.study, copy.meta_info.pop("taken_from")) == ("more", "tiny")
        trial = copy.trial.model_copy(update={"study": "tiny"})
        assert copy.model_copy(update={"trial": trial}) == original.record
        folders = (tiny / "results" / study / copy.trial_id for study in ("tiny", "more"))
        names = [{file.name for file in folder.iterdir()} for folder in folders]
        assert names[0] == names[1] >= {"record.json", "items.parquet"}
    text = "".join(page.extract_text() for page in PdfReader(tiny / "reports" / "more" / "report.pdf").pages)
    assert "Taken from other studies, which have the same trials: two records of tiny." in " ".join(text.split())
    assert "3 trials, 3 recorded, 0 to run" in bench("run", "more", *flags, *root).stdout
    broken = tiny / "results" / "broken" / originals[0].record.trial_id / "record.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    readable = [record.trial.study for record in Store(tiny / "results").elsewhere(planned[0])]
    assert readable == ["more"]  # what cannot be read is left out


def test_records_of_other_weights_are_not_added_to(tiny: Path) -> None:
    _, planned, config = prepare(tiny, recipes=["lora"])
    run_inline(planned[:1], config, tiny / "results")
    same, other = weights_source(planned[0].trial.model), {"source": "elsewhere", "revision": "main"}
    assert left(planned, tiny, weights=same) == (planned[1:], {})
    with pytest.raises(BenchError, match=r"made with other weights of .* than are here now \(source elsewhere"):
        left(planned, tiny, weights=other)
    assert left(planned, tiny, "always", other) == (planned, {})
    more = [PlannedTrial(trial.model_copy(update={"study": "more"}), fit) for trial, fit in planned]
    assert left(more, tiny, weights=other) == (more, {})
    assert left(more, tiny, "never", same) == (more, {})  # nothing is taken over
    assert left(more, tiny, weights=same) == (more[1:], {"tiny": 1})
    assert left(more, tiny, weights=same) == (more[1:], {})


PLUGIN = """
from mosld_bench import Method


class Toy(Method):
    def attach(self, model, params):
        from mosld_bench.methods import PeftMethod

        return PeftMethod().attach(model, {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]})
"""


def outdated(planned: list[PlannedTrial], root: Path, overwrite: str = "only-missing") -> Missing:
    method_code._code.cache_clear()  # as another process would
    return missing(planned, Store(root / "results"), overwrite=overwrite, weights={})


@pytest.mark.usefixtures("code_allowed")
def test_a_record_of_other_code_of_a_plug_in_is_made_again(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are not; the report shows it until then, and says so."""
    plugin = tiny / "site" / "toy_of_reuse.py"
    plugin.parent.mkdir()
    plugin.write_text(PLUGIN)
    monkeypatch.syspath_prepend(plugin.parent)
    (tiny / "methods" / "toy.yaml").write_text("title: A toy\nmethod: toy_of_reuse:Toy\n")
    study, planned, config = prepare(tiny, recipes=["toy", "lora"], budgets=["native"])
    run_inline(planned, config, tiny / "results")
    assert outdated(planned, tiny) == ([], {}, {})
    toy = next(member for member in planned if member.trial.recipe.name == "toy")
    noted = Store(tiny / "results").finished(toy)
    assert noted is not None
    assert [code["name"] for code in noted["method"]["plugins"]] == ["toy_of_reuse:Toy"]
    elsewhere = [PlannedTrial(trial.model_copy(update={"study": "more"}), fit) for trial, fit in planned]
    plugin.write_text(f"{PLUGIN}\n\nOTHER = 1\n")
    todo = outdated(planned, tiny)
    assert tuple(todo) == ([toy], {}, {toy.trial.id: "other code of toy_of_reuse:Toy than is here now"})
    assert run_sentences(Plan(study, planned, {}, {}), todo) == [
        "tiny: 3 trials, 2 recorded, 1 to run",
        f"one trial of them again: the record {toy.trial.id} was made by other code of toy_of_reuse:Toy than is here "
        "now",
    ]
    assert outdated(planned, tiny, "always") == (planned, {}, {})
    with pytest.raises(BenchError, match="--overwrite never, but 3 of 3 trials have a record"):
        outdated(planned, tiny, "never")
    assert outdated(elsewhere, tiny)[0] == [elsewhere[planned.index(toy)]]  # nor is it taken over
    pdf = PdfReader(pipeline.report(study, Workspace(tiny, tiny)))
    text = " ".join("".join(page.extract_text() for page in pdf.pages).split())
    assert "Made by other code of the method than is here now, so that run makes them again: one record of A" in text
    assert "Code of others: toy_of_reuse:Toy, SHA-256" in text
    plugin.write_text(PLUGIN)
    assert outdated(planned, tiny) == ([], {}, {})


def test_a_record_of_another_version_of_our_method_is_made_again(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of before versions were noted is one of version 1; a version may be raised for some trials alone."""
    _, planned, config = prepare(tiny, recipes=["lora", "mosld"])
    run_inline(planned, config, tiny / "results")
    assert outdated(planned, tiny) == ([], {}, {})
    for file in (tiny / "results").glob("*/*/record.json"):
        record = json.loads(file.read_text())
        assert record["meta_info"].pop("method") == {"version": 1, "plugins": []}
        file.write_text(json.dumps(record))
    assert outdated(planned, tiny) == ([], {}, {})
    monkeypatch.setattr(MixtureMethod, "version", lambda self, train: 2 if train.dtype == "bfloat16" else 1)
    assert outdated(planned, tiny) == ([], {}, {})
    monkeypatch.setattr(MixtureMethod, "version", lambda self, train: 2 if train.dtype == "float32" else 1)
    again = [member for member in planned if member.trial.recipe.name == "mosld"]
    difference = "version 1 of its method, which is at version 2 now"
    assert outdated(planned, tiny) == (again, {}, {member.trial.id: difference for member in again})


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        (None, NOTED, None),
        (NOTED, None, None),
        (NOTED, NOTED, None),
        (HASHED, {**HASHED, "revision": "v2"}, None),  # the same bytes
        (HASHED, {**HASHED, "sha256": "1234"}, ("sha256 00ff", "sha256 1234")),
        (NOTED, HASHED, None),  # without a hash on both sides, their names must do
        (NOTED, {"source": "hub", "revision": "v2"}, ("source hub, revision main", "source hub, revision v2")),
        (NOTED, {"source": "folder"}, ("source hub, revision main", "source folder")),
    ],
)
def test_weights_are_compared_by_their_hashes_or_by_their_names(
    then: Weights | None, now: Weights | None, words: tuple[str, str] | None
) -> None:
    assert differing(then, now) == words


def test_a_folder_that_moved_has_the_records_that_it_had(tiny: Path) -> None:
    _, planned, config = prepare(tiny, recipes=["lora"])
    run_inline(planned, config, tiny / "results")
    (tiny / "elsewhere").mkdir()
    moved = (tiny / "model").rename(tiny / "elsewhere" / "model")
    _, again, _ = prepare(tiny, recipes=["lora"], model={"name": str(moved)})
    assert left(again, tiny, weights=weights_source(again[0].trial.model)) == ([], {})
    weights = moved / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    _, changed, _ = prepare(tiny, recipes=["lora"], model={"name": str(moved)})
    assert left(changed, tiny, weights=weights_source(changed[0].trial.model)) == (changed, {})
