"""The numbers of the page are those of the report's tables, cell by cell."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

from mosld_bench.reporting.explorer.comparisons import Family
from mosld_bench.reporting.figures.routing import by_layer
from mosld_bench.reporting.figures.training import curve
from mosld_bench.reporting.sections.cost import audit_table, cost_table
from mosld_bench.reporting.sections.pareto import pareto_section
from mosld_bench.reporting.sections.results.differences import (
    base_tables,
    differences_tables,
    settings_tables,
    task_tables,
)
from mosld_bench.reporting.sections.results.main_table import main_tables
from mosld_bench.reporting.sections.routing import routing
from mosld_bench.reporting.sections.scored import scored_section
from mosld_bench.reporting.table import Table
from tests.reporting.explorer.conftest import Explored
from tests.reporting.reading import tables_of

Line = dict[str, str]


def lines_of(table: Table) -> list[Line]:
    """The lines of the table's CSV, as it is written."""
    assert table.frame is not None
    text = table.frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    return list(csv.DictReader(io.StringIO(text)))


def same(value: Any, cell: str) -> bool:
    """Whether a number of the data is that of a cell, which is empty where there is none."""
    if value is None or cell == "":
        return value is None and cell == ""
    return math.isclose(float(value), float(cell), rel_tol=1e-6, abs_tol=1e-12)


def row_of(data: dict[str, Any], recipe: str, setting: str) -> dict[str, Any]:
    names = [of["name"] for of in data["recipes"]]
    return next(row for row in data["rows"] if names[row["recipe"]] == recipe and row["setting"] == setting)


def measure(data: dict[str, Any], key: str) -> int:
    return next(place for place, of in enumerate(data["measures"]) if of["key"] == key)


def test_scores_are_those_of_the_main_table(hostile: Explored) -> None:
    data = hostile.data
    lines = lines_of(main_tables(hostile.analysis)[0])
    assert len(lines) == len(data["rows"]) > 10
    for line, row in zip(lines, data["rows"], strict=True):
        recipe = data["recipes"][row["recipe"]]
        assert (line["recipe"], line["setting"], line["budget"]) == (recipe["name"], row["setting"], row["budget"])
        assert same(row["trainable"], line["trainable_parameters"])
        assert row["n"] == int(line["seeds"])
        for of in data["measures"]:
            score = row["scores"][measure(data, of["key"])]
            column = f"{of['key']}_mean" if of["kind"] == "mean" else of["key"]
            assert same(score["mean"], line[column]), (line, of["key"])
            if of["kind"] == "mean":
                assert same(score["sd"], line[f"{of['key']}_sd"])
                assert (score["verdict"] or "") == line[f"{column}_verdict"]
                assert {True: "True", False: "False", None: ""}[score["tied"]] == line[f"{column}_tied"]


def entries(data: dict[str, Any]) -> dict[tuple[int, int, int], dict[str, Any]]:
    """Row, other and measure -> the comparison."""
    columns = {key: of for key, of in data["comparisons"].items() if key not in {"verdicts", "bases", "families"}}
    assert len({len(of) for of in columns.values()}) == 1
    found = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    places = {(of["row"], of["other"], of["measure"]): of for of in found}
    assert len(places) == len(found), "a difference is there once"
    return places


def compared_lines(explored: Explored) -> Iterator[tuple[Family, Line]]:
    analysis = explored.analysis
    for family, tables in (
        (Family.REFERENCE, [*differences_tables(analysis), *task_tables(analysis)]),
        (Family.BASE, base_tables(analysis)),
        (Family.SETTINGS, settings_tables(analysis)),
    ):
        for line in (line for table in tables if table.frame is not None for line in lines_of(table)):
            yield family, line


def test_differences_are_those_of_the_tables_with_their_tests(hostile: Explored) -> None:
    data, told = hostile.data, entries(hostile.data)
    rows = {id(row): place for place, row in enumerate(data["rows"])}
    families = set()
    for family, line in compared_lines(hostile):
        row = row_of(data, line["recipe"], line["setting"])
        other = row_of(data, line["reference"], line["reference_setting"])
        entry = told[rows[id(row)], rows[id(other)], measure(data, line["of"])]
        for key in ("difference", "low", "high", "p", "p_holm", "p_equal", "seeds"):
            assert same(entry[key], line[key]), (key, line)
        comparisons = data["comparisons"]
        assert comparisons["verdicts"][entry["verdict"]]["key"] == line["verdict"]
        assert comparisons["bases"][entry["basis"]]["key"] == line["basis"]
        assert bool(entry["of_items"]) == (line["of_items"] == "True")
        assert comparisons["families"][entry["family"]]["key"] == family
        families.add(family)
    assert families == set(Family) - {Family.PAIRS}


def test_every_row_may_be_the_baseline_of_its_block(hostile: Explored) -> None:
    data, told = hostile.data, entries(hostile.data)
    opposite = {"better": "worse", "worse": "better"}
    verdicts = [of["key"] for of in data["comparisons"]["verdicts"]]
    for block in (block for block in data["blocks"] if block["kind"] != "native"):
        assert len(block["rows"]) == 5
        for of in range(len(data["measures"])):
            for row in block["rows"]:
                for other in set(block["rows"]) - {row}:
                    entry, turned = told[row, other, of], told[other, row, of]
                    assert entry["difference"] == pytest.approx(-turned["difference"], abs=1e-12)
                    if block["reference"] not in {row, other}:
                        assert entry["p_holm"] == turned["p_holm"]
                        verdict, back = verdicts[entry["verdict"]], verdicts[turned["verdict"]]
                        assert back == opposite.get(verdict, verdict)
                assert (row, block["base"], of) in told
                assert (block["base"], row, of) in told


def test_the_rows_beside_the_best_are_marked_as_the_report_marks_them(hostile: Explored) -> None:
    data, analysis = hostile.data, hostile.analysis
    conditions = [condition for condition, _ in analysis.blocks()]
    for condition, block in zip(conditions, data["blocks"], strict=True):
        best = analysis.best(condition)
        if best is None:
            continue
        assert data["rows"][block["best"][0]]["id"].startswith(best.recipe.name)
        tied = {row.recipe.name for row in analysis.tied(condition)}
        scores = {
            data["recipes"][data["rows"][i]["recipe"]]["name"]: data["rows"][i]["scores"][0] for i in block["rows"]
        }
        assert {name for name, score in scores.items() if score["tied"] and name != best.recipe.name} == tied
        assert min(score["rank"] for score in scores.values() if score["rank"]) == 1
    mixture = next(of["rows"] for of in data["blocks"] if (of["setting"], of["kind"]) == ("mixture", "size"))
    ranks = {data["rows"][i]["id"].split("/")[0]: data["rows"][i]["scores"][0]["rank"] for i in mixture}
    assert ranks["mola"] == ranks["mosl"], "equal means share a place"


def test_costs_are_those_of_the_tables_of_costs(hostile: Explored) -> None:
    data = hostile.data
    for line in lines_of(cost_table(hostile.analysis)):
        row = row_of(data, line["recipe"], line["setting"])
        for key, value in row["trial_costs"].items():
            assert same(value, line[key]), (key, line)
        forgotten = row["forgetting"]
        for key, column in {"mean": "forgetting", "low": "forgetting_low", "high": "forgetting_high"}.items():
            assert same(forgotten and forgotten[key], line[column])
    for line in lines_of(audit_table(hostile.analysis)):
        row = row_of(data, line["recipe"], "mixture")
        assert same(row["target"], line["target"])
        assert same(row["residual"], line["residual"])
        assert same(row["total"], line["total_parameters"])
        assert row["fitted"] == line["fitted"]


def test_fronts_are_those_of_the_report_and_one_of_memory(hostile: Explored) -> None:
    data = hostile.data
    section = pareto_section(hostile.analysis)
    kinds = ("trainable_parameters", "active_parameters", "stored_parameters", "train_seconds")
    for line in lines_of(tables_of(section)["pareto"]):
        row = data["rows"].index(
            row_of(data, line["recipe"], "frozen" if line["recipe"] == "base" else line["setting"])
        )
        front = next(
            front
            for front in data["fronts"]
            if (data["measures"][front["measure"]]["key"], front["setting"]) == (line["role"], line["setting"])
        )
        place = [member["row"] for member in front["members"]].index(row)
        assert same(front["members"][place]["mean"], line["score"])
        assert same(front["members"][place]["low"], line["score_low"])
        for key in kinds:
            assert front["costs"][key]["standing"][place] == line[f"{key}_front"]
            assert same(data["rows"][row]["costs"][key]["value"], line[key])
        assert front["costs"]["peak_memory_mib"]["standing"][place] in {"on", "open", "off"}
    corners = data["fronts"][0]["costs"]["train_seconds"]["line"]
    assert corners == sorted(corners)
    assert [score for _, score in corners] == sorted(score for _, score in corners)


def test_curves_are_those_that_the_report_draws(hostile: Explored) -> None:
    data, rows = hostile.data, hostile.analysis.rows
    assert len(data["training"]["runs"]) == sum(len(row.records) for row in hostile.analysis.trained)
    for run in data["training"]["runs"]:
        assert len(run["steps"]) == len(run["loss"]) == len(run["smoothed"]) == 40
        assert run["validation_steps"] == [40, 80, 120, 160, 200]
        record = data["records"][run["record"]]
        assert (record["row"], record["seed"]) == (run["row"], run["seed"])
    for mean in data["training"]["means"]:
        points = curve(rows[mean["row"]], "loss")
        assert mean["steps"] == [point.step for point in points]
        assert mean["high"] == pytest.approx([point.high for point in points], rel=1e-6)
        assert mean["validation_low"] == pytest.approx(
            [point.low for point in curve(rows[mean["row"]], "validation_loss")], rel=1e-6
        )


def test_routers_are_those_of_the_table_and_of_the_heat_maps(hostile: Explored) -> None:
    data = hostile.data
    lines = lines_of(tables_of(routing(hostile.analysis))["router"])
    assert len(lines) == len(data["routers"]) == 8
    names = ("picked", "entropy_before", "largest_of_picks", "information", "most_information", "shift")
    for line in lines:
        row = data["rows"].index(row_of(data, line["recipe"], line["setting"]))
        told = next(of for of in data["routers"] if of["row"] == row)
        assert (told["routers"], told["collapsed"]) == (int(line["routers"]), int(line["collapsed"]))
        for name in names:
            for part in ("mean", "low", "high"):
                value = told["statistics"][name] and told["statistics"][name][part]
                assert same(value, line[f"{name}_{part}"]), (name, part)
        assert same(told["agreement"] and told["agreement"]["mean"], line["agreement_mean"])
    routed = next(iter(hostile.analysis.routed()))[1][0]
    layers, values = by_layer(routed)
    told = data["routers"][0]
    assert told["layers"]["layers"] == layers == [0, 1, 2, 3]
    assert pd.DataFrame(told["layers"]["values"]).to_numpy() == pytest.approx(values, rel=1e-6)
    module = told["runs"][0]["modules"][0]
    assert len(module["load"]) == len(told["runs"][0]["tasks"]) == 3
    assert all(sum(of_task) == pytest.approx(module["experts"], rel=1e-5) for of_task in module["load"])
    assert sum(run["informed"] is not None for run in told["runs"]) == 1


def test_what_was_scored_elsewhere_is_that_of_its_table(hostile: Explored) -> None:
    section = scored_section(hostile.analysis)
    assert section is not None
    lines = lines_of(tables_of(section)["scored"])
    data = hostile.data
    (row,), (line,) = data["scored"]["rows"], lines
    assert (row["id"], row["title"], str(row["trainable"])) == (
        line["scored"],
        line["title"],
        line["trainable_parameters"],
    )
    assert len(row["scores"]) == len(data["measures"])
    for of, score in zip(data["measures"], row["scores"], strict=True):
        if of["kind"] == "task":
            assert same(score["mean"], line[of["key"]])
            assert score["low"] is score["high"] is None
            continue
        for name in ("mean", "low", "high"):
            assert same(score[name], line[f"{of['key']}_{name}"])
            assert score[name] is not None
    assert row["differences"]
