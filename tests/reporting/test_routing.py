"""What a report says of routers: arrays from files, sentences, table, figures, and a collapse in the opening."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from mosld_bench.records.record import Record
from mosld_bench.records.store import Sources
from mosld_bench.reporting.analysis import Analysis, analyse
from mosld_bench.reporting.build import write_report
from mosld_bench.reporting.figures import draw_all, routing
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import report_style
from mosld_bench.reporting.routers import Module, Routed, Run, modules_text, read_run
from mosld_bench.reporting.sections.routing import routing as routing_section
from mosld_bench.reporting.sections.summary import answer_lines
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Trial
from tests.reporting.reading import document_of, pages_of, read_csv, tables_of, words
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials, router_of, task_configs

COLLAPSED = "model.layers.2.self_attn.v_proj"
#: Recipe -> what its routers do.
KINDS: Mapping[str, dict[str, Any]] = {
    "moe-lora": {"top_k": None},
    "mola": {"experts": (2, 4, 6, 8), "top_k": 2, "common": 0.5},
    "hydralora": {"experts": (64,), "top_k": 8, "probabilities": False},
    "mosl": {"follows": 8.0},
    "mosld": {"experts": (8,), "top_k": 2, "collapsed": [COLLAPSED]},
}


def a_study(**changes: Any) -> Study:
    return make_study(**{"in_domain": ("a", "b", "c"), "out_of_domain": ("d", "e"), "seeds": (0, 1), **changes})


def analysis_of(study: Study, frames: Mapping[str, pd.DataFrame | None], records: list[Record]) -> Analysis:
    """The analysis of records with what their routers did; trial id -> that."""
    tasks = task_configs(study.in_domain + study.out_of_domain)
    sources = Sources(tuple(records), tasks, router=lambda trial: frames.get(trial.id))
    return analyse(study, [record.trial for record in records], sources)


def routed_analysis(study: Study, kinds: Mapping[str, dict[str, Any]] = KINDS, **common: Any) -> Analysis:
    """LoRA, which has no routers, and recipes whose routers are of ``kinds``."""
    trials = make_trials(study, [RECIPES[name] for name in ("lora", *kinds)])
    records = [make_record(trial, study) for trial in trials]
    frames = {
        record.trial_id: router_of(record, **{**common, **kinds[record.trial.recipe.name]})
        for record in records
        if record.trial.recipe.name in kinds
    }
    return analysis_of(study, frames, records)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return routed_analysis(a_study())


def routed(analysis: Analysis, recipe: str, block: int = 0) -> Routed:
    return next(found for found in analysis.routed()[block][1] if found.row.recipe.name == recipe)


def a_run(frame: pd.DataFrame | None = None, **kind: Any) -> tuple[Run, pd.DataFrame]:
    study = a_study()
    record = make_record(make_trials(study, [RECIPES["mola"]])[0], study)
    frame = router_of(record, **kind) if frame is None else frame
    run = read_run(record, frame)
    assert run is not None
    return run, frame


# From a file to numbers


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_follow_from_the_rows_of_the_file(kind: str) -> None:
    """Of each module, in-domain tasks weighted equally; picks, or where all are picked the gate mass."""
    run, frame = a_run(**KINDS[kind])
    test = frame[frame["split"] == "test"]
    for place, module in enumerate(run.modules):
        rows = test[test["module"] == module.name]
        n = int(rows["experts"].iloc[0])
        found = {name: float(values[place]) for name, values in run.numbers.items()}
        dense = bool((rows["picks"] == rows["tokens"]).all())
        shares: dict[str, dict[str, list[float]]] = {"picks": {}, "mass": {}}
        before, after, picked = [], [], []
        for task in "abcde":
            of_task = rows[rows["task"] == task].sort_values("expert")
            for column, by_task in shares.items():
                values = [float(value) for value in of_task[column]]
                by_task[task] = [value / math.fsum(values) for value in values]
            tokens = float(of_task["tokens"].iloc[0])
            if task in "abc":
                picked.append(math.fsum(of_task["picks"]) / tokens)
                before.append(float(of_task["entropy_before"].iloc[0]) / tokens)
                after.append(float(of_task["entropy_after"].iloc[0]) / tokens)
        inside = {column: [math.fsum(of[t][e] for t in "abc") / 3 for e in range(n)] for column, of in shares.items()}
        outside = {column: [(of["d"][e] + of["e"][e]) / 2 for e in range(n)] for column, of in shares.items()}
        used = "mass" if dense else "picks"
        k = math.fsum(picked) / 3
        apart = [abs(p - q) for p, q in zip(inside[used], outside[used], strict=True)]
        bits = [
            shares[used][task][e] * math.log2(shares[used][task][e] / inside[used][e])
            for task in "abc"
            for e in range(n)
            if shares[used][task][e]
        ]
        assert found["experts"] == n
        assert found["picked"] == pytest.approx(k)
        nothing = pytest.approx(math.nan, nan_ok=True)
        assert found["entropy_before"] == pytest.approx(math.fsum(before) / 3 / math.log(n), nan_ok=True)
        assert found["entropy_after"] == (pytest.approx(math.fsum(after) / 3 / math.log(k)) if k > 1 else nothing)
        assert found["largest_of_picks"] == (nothing if dense else pytest.approx(max(inside["picks"])))
        assert found["largest_of_mass"] == pytest.approx(max(inside["mass"]))
        assert found["dead"] == sum(share < 0.01 / n for share in inside[used])
        assert found["information"] == pytest.approx(math.fsum(bits) / 3, abs=1e-12)
        assert found["most_information"] == pytest.approx(min(math.log2(n / (1 if dense else k)), math.log2(3)))
        assert found["shift"] == pytest.approx(math.fsum(apart) / 2)
        assert bool(found["collapsed"]) is (kind == "mosld" and module.name == COLLAPSED)


def test_agreement_follows_from_the_bits_of_the_file(analysis: Analysis) -> None:
    """By a loop over experts and tokens where the experts of the other seed have a known order."""
    run, frame = a_run(experts=(4,), common=0.0)
    renamed = frame.assign(expert=(frame["expert"] + 1) % 4)
    other, _ = a_run(renamed)
    found = run.agreement(other)
    assert found is not None
    alike, chance = found
    assert alike == pytest.approx(1.0)
    assert (chance < 0.5).all()
    planted = routed(analysis, "mola").agreement  # half of the tokens choose by what is the same for every seed
    assert planted is not None
    assert planted[0].mean > planted[1].mean + 0.05
    by_chance = routed(analysis, "hydralora").agreement
    assert by_chance is not None
    assert by_chance[0].mean == pytest.approx(by_chance[1].mean, abs=0.01)


def test_what_fills_up_the_last_byte_is_no_token() -> None:
    run, frame = a_run(experts=(2,), tokens=17, common=1.0)
    assert run.sample["a"].shape == (8, 2, 3)
    found = run.agreement(a_run(frame)[0])
    assert found is not None
    whole, _ = a_run(frame.assign(sample=frame["sample"].map(lambda bits: bits + bytes(60), na_action="ignore")))
    again = whole.agreement(whole)
    assert again is not None
    assert [of.tolist() for of in again] == [of.tolist() for of in found]
    assert (found[0] == 1).all()
    assert (found[1] < 1).any()


def test_agreement_needs_a_choice_and_the_same_tokens() -> None:
    run, frame = a_run(experts=(4,))
    dense, _ = a_run(experts=(4,), top_k=None)
    assert dense.agreement(dense) is None
    without, _ = a_run(frame.assign(sample=None))
    assert run.agreement(without) is None
    fewer, _ = a_run(frame.assign(sample=frame["sample"].map(lambda bits: bits[:8], na_action="ignore")))
    assert run.agreement(fewer) is None
    part, _ = a_run(frame[(frame["split"] != "test") | (frame["task"] != "b")])
    assert run.agreement(part) is not None  # on the tokens of the other tasks
    unlike, _ = a_run(experts=(4,), layers=2)
    assert run.agreement(unlike) is None


def test_a_file_without_a_choice_or_without_test_items_says_nothing() -> None:
    study = a_study()
    record = make_record(make_trials(study, [RECIPES["mola"]])[0], study)
    frame = router_of(record)
    assert read_run(record, frame[frame["split"] != "test"]) is None
    assert read_run(record, router_of(record, experts=(1,))) is None
    one_task = (frame["split"] == "test") & (frame["task"] == "b")
    last = read_run(record, frame[~one_task | (frame["layer"] > 2)])
    assert last is not None
    assert {module.layer for module in last.modules} == {3}
    mixed = read_run(record, router_of(record, experts=(1, 2)))
    assert mixed is not None
    assert {module.layer for module in mixed.modules} == {2, 3}
    assert mixed.numbers["experts"].tolist() == [2] * 4


def test_the_order_of_rows_changes_nothing() -> None:
    run, frame = a_run(**KINDS["mola"])
    other, _ = a_run(frame.sample(frac=1, random_state=0))
    for name, module in run.numbers.items():
        found = dict(zip(other.modules, other.numbers[name], strict=True))
        assert [found[m] for m in run.modules] == pytest.approx(list(module), nan_ok=True)


@pytest.mark.parametrize(
    ("gate", "expected"), [(1e-6, 1.0), (0.3, 0.0)], ids=["one expert has the mass", "experts share it"]
)
def test_a_dense_router_collapses_by_its_gates(gate: float, expected: float) -> None:
    """Every expert is picked by every token, whatever the gates."""
    run, frame = a_run(experts=(4,), top_k=None)
    mass = frame["tokens"] * np.where(frame["expert"] == 0, 1 - 3 * gate, gate)
    found, _ = a_run(frame.assign(mass=mass))
    assert set(found.numbers["collapsed"]) == {expected}
    assert set(found.numbers["dead"]) == {3 * expected}
    assert not run.numbers["collapsed"].any()


# What is said


def seen(analysis: Analysis) -> dict[str, str]:
    """Recipe's title -> the sentence on it."""
    lines = words(routing_section(analysis)).splitlines()
    return {name: text for name, _, text in (line.partition(": ") for line in lines) if text.endswith(".")}


def test_a_sentence_a_recipe_says_what_is_seen(analysis: Analysis) -> None:
    said = seen(analysis)
    assert said["MoE-LoRA"].startswith("ignores the task (mutual information 0.00 of 1.58 bits, by module 0.00 to 0.0")
    assert said["MoE-LoRA"].endswith("; no expert dead.")
    assert said["MoSL"].startswith("follows the task (mutual information 1.")
    assert "two seeds pick alike largely (9" in said["MoSL"]
    assert "two seeds pick alike in part (5" in said["MoLA"]
    assert "two seeds pick alike no more than by chance (" in said["HydraLoRA"]
    assert "2 of 16 routers collapsed" in said["MoSLD"]
    assert "LoRA" not in said


def test_the_opening_names_recipe_module_and_seeds_of_a_collapse(analysis: Analysis) -> None:
    (line,) = [line for line in answer_lines(analysis) if line.startswith("Routers.")]
    assert line.startswith(
        "Routers. MoSLD: 2 of 16 routers have collapsed, v_proj of layer 2 at every seed. A router has collapsed where "
        "one expert takes more than 95 % of the picks"
    )
    calm = routed_analysis(a_study(), {"mola": KINDS["mola"]})
    (line,) = [line for line in answer_lines(calm) if line.startswith("Routers.")]
    assert line.startswith("Routers. None of the 16 routers of MoLA (modules of all seeds) has collapsed.")


def test_a_collapse_at_one_seed_of_one_size_is_said_so() -> None:
    study = a_study(budgets=("60000", "120000"))
    trials = make_trials(study, [RECIPES[name] for name in ("lora", "mola", "mosld")])
    records = [make_record(trial, study) for trial in trials]
    names = [f"model.layers.{layer}.self_attn.{kind}" for layer, kind in ((0, "q_proj"), (1, "q_proj"), (3, "v_proj"))]

    def frame(trial: Trial, record: Record) -> pd.DataFrame:
        bad = trial.recipe.name == "mosld" and trial.budget == "120000" and trial.seed == 1
        return router_of(record, collapsed=names if bad else ())

    frames = {t.id: frame(t, r) for t, r in zip(trials, records, strict=True) if t.recipe.name != "lora"}
    found = analysis_of(study, frames, records)
    (line,) = [line for line in answer_lines(found) if line.startswith("Routers.")]
    assert (
        "MoSLD: 3 of 32 routers have collapsed, q_proj of layers 0–1, v_proj of layer 3 at seed 1 (120,000 "
        "parameters). A router" in line
    )
    text = words(routing_section(found))
    assert "Of mixture, 60,000 parameters:" in text
    assert "Mixture, budget 120,000 parameters: the task is ignored by MoLA and MoSLD." in text


def test_collapses_of_models_of_single_tasks_are_said_by_task_and_equal_blocks_together() -> None:
    study = a_study(settings=("mixture", "single"), in_domain=("a", "b"))
    records = [make_record(trial, study) for trial in make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])]
    frames = {
        record.trial_id: router_of(record, collapsed=[COLLAPSED] if record.trial.seed else ())
        for record in records
        if record.trial.recipe.name == "mosld"
    }
    (line,) = [line for line in answer_lines(analysis_of(study, frames, records)) if line.startswith("Routers.")]
    assert (
        "MoSLD: 3 of 48 routers have collapsed, v_proj of layer 2 at seed 1 (mixture); v_proj of layer 2 at seed 1 on "
        "A and B (single task)." in line
    )


def test_modules_are_named_as_short_as_they_are_told_apart() -> None:
    layers = [Module(f"model.layers.{i}.self_attn.q_proj", i) for i in range(20)]
    assert modules_text([layers[i] for i in (0, 1, 2, 5, 7, 8)], layers) == "q_proj of layers 0–2, 5 and 7–8"
    assert modules_text(layers, layers) == "all modules"
    assert modules_text(layers[:1], layers[:1]) == "q_proj of layer 0"
    assert modules_text(layers[::2], layers) == "q_proj of layers 0, 2 and others, 10 in all"
    both = [Module("model.layers.0.a.proj", 0), Module("model.layers.0.b.proj", 0), Module("model.head", -1)]
    assert modules_text(both[1:], both) == "b.proj of layer 0, head"


# Table and figures


def test_the_table_has_a_row_a_routed_recipe_and_its_numbers(analysis: Analysis, tmp_path: Path) -> None:
    (table,) = tables_of(routing_section(analysis)).values()
    assert [line.cells[0].text for line in table.rows] == ["MoE-LoRA", "MoLA", "HydraLoRA", "MoSL", "MoSLD"]
    cells = {line.cells[0].text: [cell.text for cell in line.cells[1:]] for line in table.rows}
    assert cells["MoLA"][:2] == ["2–8", "2"]
    assert cells["MoE-LoRA"][4] == "–"  # every expert is picked
    assert cells["MoE-LoRA"][10:12] == ["–", "–"]
    assert cells["HydraLoRA"][2:4] == ["–", "1.00"]  # no probabilities, and equal gates
    assert cells["MoSL"][3] == "–"  # one pick: nothing is left to choose
    assert cells["MoSLD"][-1] == "2 of 16"
    table.write(tmp_path)
    lines = {line["recipe"]: line for line in read_csv(tmp_path / "router.csv")}
    assert lines["mosld"]["collapsed"] == "2"
    assert lines["mosld"]["routers"] == "16"
    assert lines["hydralora"]["entropy_before_mean"] == ""
    values = routed(analysis, "mola").values("information")
    for part, value in (("mean", values.mean()), ("low", values.min()), ("high", values.max())):
        assert float(lines["mola"][f"information_{part}"]) == pytest.approx(value, rel=1e-8)
    assert (tmp_path / "router.tex").read_text(encoding="utf-8").count("MoSLD") == 1


def test_records_without_a_file_are_told() -> None:
    study = a_study()
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mola"]])
    records = [make_record(trial, study) for trial in trials]
    frames = {records[-1].trial_id: router_of(records[-1])}
    (table,) = tables_of(routing_section(analysis_of(study, frames, records))).values()
    assert "Not every record says what its routers did: MoLA (1 of 2)." in table.notes
    assert [cell.text for cell in table.rows[0].cells][-3:-1] == ["–", "–"]


def plots(analysis: Analysis) -> dict[str, Plot]:
    with report_style():
        return {plot.name: plot for plot in routing.draw(analysis)}


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible() and axes.images]


def test_the_figure_of_layers_shows_the_experts_in_the_order_of_their_load(analysis: Analysis) -> None:
    figure = plots(analysis)["router-layers"].figure
    assert titles(figure) == ["MoE-LoRA", "MoLA", "HydraLoRA", "MoSL", "MoSLD"]
    layers, values = routing.by_layer(routed(analysis, "mola"))
    drawn = np.asarray(figure.axes[1].images[0].get_array(), dtype=float)
    assert layers == [0, 1, 2, 3]
    assert np.array_equal(np.isnan(values), np.arange(8)[:, None] >= np.array([2, 4, 6, 8]))
    assert drawn[~np.isnan(values)] == pytest.approx(values[~np.isnan(values)])
    for place, n in enumerate((2, 4, 6, 8)):
        assert values[:n, place].sum() == pytest.approx(n)
        assert (np.diff(values[:n, place]) <= 0).all()
    _, collapsed = routing.by_layer(routed(analysis, "mosld"))
    assert collapsed[0, 2] == pytest.approx((4 + collapsed[0, 1]) / 2, abs=0.2)  # of two modules one picks the same two


def test_the_figure_of_tasks_shows_the_module_that_tells_most_of_them(analysis: Analysis) -> None:
    figure = plots(analysis)["router-tasks"].figure
    row = routed(analysis, "mosl")
    best = row.most_informed
    assert best is not None
    run, module = best
    assert run.numbers["information"][module] == row.values("information").max()
    order, values = routing.by_task(run, module, ("a", "b", "c", "d", "e"))
    assert sorted(order) == [0, 1, 2, 3]
    assert values.sum(axis=1) == pytest.approx([4.0] * 5)
    places = [int(line.argmax()) for line in values[:3]]
    assert sorted(set(places)) == places  # each task has an expert, in the order of tasks
    assert f"MoSL: {row.values('information').max():.2f} of 1.58 bits" in titles(figure)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["A", "B", "C", "D", "E"]


def test_the_course_is_followed_at_every_validation(analysis: Analysis) -> None:
    points = routed(analysis, "mosl").course("information")
    assert [point.step for point in points] == [40, 80, 120, 160, 200]
    assert points[-1].mean > points[0].mean + 0.3
    assert all(0 <= point.low <= point.mean <= point.high <= 1 for point in points)
    assert routed(analysis, "hydralora").course("entropy") == []
    assert "router-training" in plots(analysis)
    still = routed_analysis(a_study(), {"mola": {"steps": ()}})
    assert "router-training" not in plots(still)
    assert "router-training" not in words(routing_section(still))


def test_one_task_has_nothing_to_follow() -> None:
    single = routed_analysis(a_study(settings=("single",)), {"mola": {}, "mosl": {}})
    text = words(routing_section(single))
    assert "the task (" not in text
    assert "router-tasks" not in plots(single)
    assert "no expert dead; two seeds" in text


def test_a_study_without_files_of_routers_has_no_section(tmp_path: Path) -> None:
    study = a_study()
    records = [make_record(trial, study) for trial in make_trials(study, [RECIPES["lora"], RECIPES["mola"]])]
    found = analysis_of(study, {}, records)
    assert routing_section(found) is None
    assert not routing.draw(found)
    assert not [line for line in answer_lines(found) if line.startswith("Routers.")]
    assert "Routing" not in [section.title for section in document_of(found).sections]


def test_the_report_of_large_models_and_long_names_is_set(tmp_path: Path) -> None:
    """Thirty layers, many recipes, and titles longer than a panel."""
    long = {f"mola-{i}": f"MoLA with a title that is longer than a panel is wide, number {i}" for i in range(13)}
    study = a_study(in_domain=tuple(f"a_task_with_a_long_name_{i}" for i in range(6)), seeds=(0,), figures=())
    recipes = [RECIPES["mola"].model_copy(update={"name": n, "title": t}) for n, t in long.items()]
    records = [make_record(trial, study) for trial in make_trials(study, [RECIPES["lora"], *recipes])]
    frame = router_of(records[-1], layers=30, experts=(2, 4, 6, 8), top_k=2, steps=(), tokens=64)
    frames = {record.trial_id: frame for record in records if record.trial.recipe.name != "lora"}
    found = analysis_of(study, frames, records)
    folder = write_report(found, tmp_path / "out").parent
    text = " ".join(pages_of(folder / "report.pdf"))
    assert "The task is ignored by all 13 recipes." in text
    assert "Not drawn: MoLA with a title that is longer than a panel is wide, number 12" in text
    assert {p.name for p in (folder / "figures").glob("router-*.png")} == {"router-layers.png", "router-tasks.png"}


def test_a_report_does_not_wait_for_routers() -> None:
    """Twenty-five records of 60 modules and 5 tasks, from the files' rows on."""
    study = a_study(seeds=(0, 1, 2, 3, 4))
    names = ("moe-lora", "mola", "hydralora", "mosl", "mosld")
    records = [make_record(trial, study) for trial in make_trials(study, [RECIPES[name] for name in names])]
    frame = router_of(records[0], layers=30, experts=(8,), top_k=2, tokens=520, steps=(40, 80))
    found = analysis_of(study, {record.trial_id: frame for record in records}, records)
    start = time.process_time()
    assert sum(row.agreement is not None for _, rows in found.routed() for row in rows) == 5
    assert routing_section(found) is not None
    assert time.process_time() - start < 6  # about 0.9 on a free machine


def test_the_same_records_give_the_same_files(analysis: Analysis, tmp_path: Path) -> None:
    for place in ("one", "two"):
        folder = tmp_path / place
        folder.mkdir()
        for plot in plots(analysis).values():
            plot.write(folder)
            plot.write_svg(folder / f"{plot.name}.svg", "Libertinus Serif")
        for table in tables_of(routing_section(analysis)).values():
            table.write(folder)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 11
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_figures_are_drawn_with_the_report(analysis: Analysis) -> None:
    names = [plot.name for plot in draw_all(analysis) if isinstance(plot, Plot)]
    assert [name for name in names if name.startswith("router-")] == [
        "router-layers",
        "router-tasks",
        "router-training",
    ]
    section = next(section for section in document_of(analysis).sections if section.title == "Routing")
    assert [block.data()["kind"] for block in section.blocks] == ["text", "list", "table", "figure", "figure", "figure"]
