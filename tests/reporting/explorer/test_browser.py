"""The page in a browser: what a reader does with it, and what it must never do."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mosld_bench.records.scale import Range, Scale
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.explorer.page import write_page
from mosld_bench.reporting.sections.results.main_table import main_rows
from tests.support.browser import PHONE, Visit, chromium, visit
from tests.support.explorer import END, QUOTES, SCRIPT, TRACEBACK, hostile_analysis

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

pytestmark = pytest.mark.browser

VIEWS = ("results", "costs", "curves", "items", "routers", "trials")


@dataclass(frozen=True)
class Written:
    """A page, what it is of, and the data that it holds."""

    file: Path
    analysis: Analysis
    data: dict[str, Any]

    def rows(self, **wanted: Any) -> list[dict[str, Any]]:
        return [row for row in self.data["rows"] if all(row[key] == value for key, value in wanted.items())]

    def scale(self, measure: int) -> Scale:
        told = self.data["measures"][measure]["scale"]
        return Scale(Range(told["range"]), told["higher_is_better"])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    root = tmp_path_factory.mktemp("page")
    analysis = hostile_analysis(root)
    file = write_page(analysis, root / "out" / "study")
    found = re.search(r'<script type="application/json" id="explorer-data">(.*?)</script>', file.read_text(), re.DOTALL)
    assert found
    return Written(file, analysis, json.loads(found[1]))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def opened(browser: Browser, written: Written) -> Iterator[Visit]:
    """The page, which at the end has said nothing, asked nothing, and loaded nothing but itself and its items."""
    with visit(browser, written.file) as opened:
        yield opened
        assert opened.said == []
        assert opened.dialogs == []
        folder = written.file.parent.as_uri()
        assert [url for url in opened.requests if not url.startswith((folder, "about:"))] == []


def board(opened: Visit) -> Locator:
    return opened.page.get_by_role("table", name="Accuracy: mean over seeds")


def in_block(row: dict[str, Any]) -> int:
    """Where a row's block stands in the leaderboard."""
    return -1 if row["block"] is None else int(row["block"])


def titles(table: Locator) -> list[str]:
    """The headings of the rows of a table, from the first to the last."""
    return table.locator("tbody tr:not(.heading) th[scope=row]").all_inner_texts()


def values(table: Locator, column: int) -> list[float]:
    """The numbers at the beginning of a column's cells."""
    texts = table.locator(f"tbody tr:not(.heading) > :nth-child({column})").all_inner_texts()
    return [float(text.split()[0].split("\n")[0].rstrip("†↑↓≈")) for text in texts]


def test_the_leaderboard_prints_what_the_report_prints(opened: Visit, written: Written) -> None:
    lines = board(opened).locator("tbody tr:not(.heading)")
    expected = sorted(
        zip(written.data["rows"], main_rows(written.analysis), strict=True), key=lambda pair: in_block(pair[0])
    )
    assert lines.count() == len(expected)
    for i, (row, printed) in enumerate(expected):
        cells = [re.sub(r"\s+", " ", cell).strip() for cell in lines.nth(i).locator("td, th").all_inner_texts()]
        assert cells[1:4] == [row["title"], str(printed.seeds), f"{printed.trainable:,}"]
        for cell, score in zip((cells[4], cells[6]), printed.scores, strict=True):
            assert cell.startswith(score.scale.mean_text(score.mean, score.sd))
            assert set(score.mark) <= set(cell)


def test_a_click_sorts_and_the_next_one_turns_it_around(opened: Visit) -> None:
    opened.page.get_by_label("Keep blocks together").uncheck()
    header = board(opened).get_by_role("columnheader", name="Mean").first
    header.get_by_role("button").click()
    falling = values(board(opened), 6)  # there is a column for the block now
    assert falling == sorted(falling, reverse=True)
    assert falling[0] > falling[-1]
    assert header.get_attribute("aria-sort") == "descending"
    header.get_by_role("button").press("Enter")
    assert values(board(opened), 6) == falling[::-1] or values(board(opened), 6) == sorted(falling)
    assert header.get_attribute("aria-sort") == "ascending"


def test_blocks_stay_together_when_sorted(opened: Visit, written: Written) -> None:
    board(opened).get_by_role("columnheader", name="Mean").first.get_by_role("button").click()
    assert board(opened).locator("tr.heading").all_inner_texts() == [
        "Untrained",
        *(b["label"] for b in written.data["blocks"]),
    ]
    block = next(i for i, b in enumerate(written.data["blocks"]) if b["kind"] == "size")
    means = [row["scores"][0]["mean"] for row in written.rows(block=block)]
    body = board(opened).locator("tbody").nth(block + 1)
    assert values(body.locator(".."), 5)[1 : 1 + len(means)] == [
        float(f"{100 * m:.1f}") for m in sorted(means, reverse=True)
    ]


def test_filters_let_through_what_is_asked_for(opened: Visit, written: Written) -> None:
    opened.page.get_by_label("Setting").select_option("single")
    assert len(titles(board(opened))) == len(written.rows(setting="single")) + len(written.rows(frozen=True))
    opened.page.get_by_label("Budget").select_option("60000")
    assert len(titles(board(opened))) == len(written.rows(setting="single", budget="60000")) + 1
    opened.page.get_by_label("Find a method").press_sequentially("hydra")
    assert [title.strip() for title in titles(board(opened))] == ["<!-- HydraLoRA ]]>"]
    opened.page.get_by_label("Scores").select_option("people")
    assert "Commonsense" not in board(opened).locator("thead").inner_text()
    opened.page.get_by_role("button", name="Clear").click()
    assert len(titles(board(opened))) == len(written.data["rows"])


def test_any_row_becomes_the_baseline(opened: Visit, written: Written) -> None:
    data = written.data
    chosen = next(i for i, row in enumerate(data["rows"]) if row["title"] == "MoSL" and row["setting"] == "mixture")
    board(opened).locator(
        "tbody tr", has=opened.page.get_by_role("rowheader", name="MoSL", exact=True)
    ).first.get_by_role("radio").check()
    assert opened.page.get_by_role("heading", name=re.compile("^Differences to MoSL")).is_visible()
    opened.page.get_by_text("The numbers as a table").click()
    table = opened.page.get_by_role("table", name="Differences, row minus baseline")
    shown = [row.split("\t") for row in table.locator("tbody").inner_text().split("\n") if row.strip()]
    columns = data["comparisons"]
    expected = [i for i, other in enumerate(columns["other"]) if other == chosen]
    assert len(shown) == len(expected) > 20
    texts = {tuple(cell.strip() for cell in row) for row in shown}
    for i in expected:
        scale = written.scale(columns["measure"][i])
        title = data["rows"][columns["row"][i]]["title"]
        difference = scale.text(columns["difference"][i], sign=True)
        between = scale.interval(columns["low"][i], columns["high"][i])
        verdict = columns["verdicts"][columns["verdict"][i]]["text"]
        measure = data["measures"][columns["measure"][i]]["title"]
        assert any(
            row[0].startswith(title) and row[2:5] == (measure, difference, between) and verdict in row for row in texts
        ), (title, measure, difference, between, verdict)


def test_every_difference_is_drawn_with_its_words(opened: Visit, written: Written) -> None:
    drawing = opened.page.get_by_role("img", name=re.compile("^In-domain, minus MoSLD")).first
    text = drawing.get_attribute("aria-label") or ""
    reference = written.data["blocks"][0]["reference"]
    columns = written.data["comparisons"]
    for i, (other, measure) in enumerate(zip(columns["other"], columns["measure"], strict=True)):
        if other == reference and measure == 0 and columns["families"][columns["family"][i]]["key"] == "reference":
            assert written.scale(0).text(columns["difference"][i], sign=True) in text
    assert SCRIPT in text


def test_what_was_scored_elsewhere_stands_apart(opened: Visit, written: Written) -> None:
    (row,) = written.data["scored"]["rows"]
    table = opened.page.get_by_role("table", name="Scored on the items of this study")
    assert titles(table) == [row["title"]] == [SCRIPT]
    cells = table.locator("tbody tr").locator("td").all_inner_texts()
    means = [i for i, of in enumerate(written.data["measures"]) if of["kind"] == "mean"]
    for i in means:
        score, scale = row["scores"][i], written.scale(i)
        bounds = " to ".join(scale.text(score[end]) for end in ("low", "high"))
        assert cells[3 + i] == f"{scale.text(score['mean'])} ({bounds})"
    (section,) = opened.page.locator(
        "section", has=opened.page.get_by_role("heading", name="Scored, not trained here")
    ).all()
    assert all(text in section.inner_text() for text in (written.data["scored"]["text"], *row["differences"]))


def test_a_point_of_costs_tells_what_it_is_under_the_pointer(opened: Visit) -> None:
    opened.go("view=costs&cost=train_seconds")
    drawing = opened.page.get_by_role("img", name=re.compile("^In-domain against Training"))
    drawing.locator("g[fill^='var(--mark'] path").first.hover(force=True)
    told = " ".join(drawing.locator("text").all_text_contents())
    assert "95 %" in told
    assert "the front" in told


def test_rows_switch_curves_off(opened: Visit) -> None:
    opened.go("view=curves&curve=validation")
    drawing = opened.page.get_by_role("img", name=re.compile("^Validation loss over"))
    assert "MoSLD ends at" in (drawing.get_attribute("aria-label") or "")
    opened.page.get_by_role("group", name="Curves that are shown").first.get_by_label("MoSLD", exact=True).uncheck()
    drawing = opened.page.get_by_role("img", name=re.compile("^Validation loss over"))
    assert "MoSLD ends at" not in (drawing.get_attribute("aria-label") or "")
    rates = opened.page.get_by_role("img", name=re.compile("against learning rate"))
    assert "MoSLD: chosen 0.005" in (rates.get_attribute("aria-label") or "")


def test_a_click_on_the_map_opens_the_item(opened: Visit, written: Written) -> None:
    assert opened.page.evaluate("window.mosldBenchItems") is None
    opened.go("view=items&task=commonsense")
    canvas = opened.page.get_by_role("slider", name="Item")
    assert canvas.get_attribute("aria-valuemax") == "400"
    items = opened.page.evaluate("window.mosldBenchItems['0']")
    box = canvas.bounding_box()
    assert box
    canvas.click(position={"x": box["width"] / 2 + 0.5, "y": 30})
    panel = opened.page.locator("#item")
    hardest = items["order"][200]
    assert f"item={items['doc'][hardest]}" in opened.address
    assert panel.get_by_role("region", name="Prompt").inner_text() == items["prompt"][hardest]
    options = panel.get_by_role("table", name="Options")
    assert options.locator("tbody tr").count() == 2
    first = options.locator("tbody tr").first
    assert items["options"][hardest][0].strip() in first.inner_text()
    rows = opened.page.get_by_label("First row")
    reference = items["rows"].index(written.data["blocks"][0]["reference"])
    assert rows.input_value() == written.data["rows"][items["rows"][reference]]["id"]
    likely = items["logliks"][reference][hardest][0]
    assert f"{likely:.2f}".replace("-", "−") in first.inner_text()
    opened.page.get_by_role("slider", name="Item").press("ArrowRight")
    assert opened.page.get_by_role("slider", name="Item").get_attribute("aria-valuenow") == "202"
    assert panel.get_by_role("region", name="Prompt").inner_text() == items["prompt"][items["order"][201]]


def test_items_where_two_rows_differ(opened: Visit) -> None:
    opened.go("view=items&task=commonsense&only=differ")
    canvas = opened.page.get_by_role("slider", name="Item")
    n = int(canvas.get_attribute("aria-valuemax") or 0)
    assert 0 < n < 400
    canvas.press("Home")
    assert "The two differ" in opened.page.locator("#item").inner_text()


def test_without_its_file_a_task_says_so(browser: Browser, written: Written, tmp_path: Path) -> None:
    alone = tmp_path / "index.html"
    alone.write_text(written.file.read_text())
    with visit(browser, alone) as opened:
        opened.go("view=items")
        opened.page.get_by_text("items/0.js cannot be read").wait_for()
        assert len(opened.said) == 1  # the browser's own word on the missing file


def test_heat_maps_of_routers_have_the_loads(opened: Visit, written: Written) -> None:
    entry = written.data["routers"][0]
    opened.go("view=routers")
    table = opened.page.get_by_role("region", name="Heat map: load by layer").get_by_role("table")
    shown = [float(text) for text in table.locator("tbody tr").first.locator("td").all_inner_texts()]
    assert shown == pytest.approx(entry["layers"]["values"][0], abs=0.006)
    opened.page.get_by_label("Module").select_option(index=1)
    assert (
        entry["runs"][0]["modules"][1]["short"]
        in opened.page.get_by_role("region", name="Heat map: load by task").locator("..").inner_text()
    )


def test_a_failed_trial_tells_its_error_and_how_to_repeat_it(opened: Visit, written: Written) -> None:
    opened.go("view=trials")
    failed = opened.page.locator(".failure")
    assert written.data["failures"][0]["error"] in failed.inner_text()
    failed.get_by_text("Traceback").first.click()
    assert failed.locator("pre").first.inner_text() == TRACEBACK
    failed.get_by_role("button", name="Copy").click()
    assert opened.clipboard == "\n".join(written.data["failures"][0]["repeat"])


def test_a_record_shows_its_configuration_and_its_command(opened: Visit, written: Written) -> None:
    record = written.data["records"][-1]
    opened.go("view=trials")
    opened.page.get_by_role("row", name=re.compile(record["trial"])).get_by_role("link").click()
    detail = opened.page.locator("#record")
    assert f"trial={record['trial']}" in opened.address
    assert record["repeat"][-1] in detail.inner_text()
    detail.get_by_role("button", name="Copy configuration as JSON").click()
    assert json.loads(opened.clipboard) == record["config"]


def test_a_link_restores_the_view(opened: Visit, browser: Browser, written: Written) -> None:
    chosen = written.rows(title="MoSL", setting="single")[0]
    opened.page.get_by_label("Setting").select_option("single")
    opened.page.get_by_label("Compare with").select_option(chosen["id"])
    board(opened).get_by_role("columnheader", name="Mean").first.get_by_role("button").click()
    before = titles(board(opened))
    opened.page.get_by_role("button", name="Copy link").click()
    link = opened.clipboard
    with visit(browser, written.file) as other:
        other.page.goto(link)
        other.page.reload()
        assert titles(board(other)) == before
        assert other.page.get_by_label("Setting").input_value() == "single"
        assert other.page.get_by_label("Compare with").input_value() == chosen["id"]
        assert board(other).get_by_role("columnheader", name="Mean").first.get_attribute("aria-sort") == "descending"
        assert board(other).locator("tr.baseline").count() == 1


def test_back_goes_to_the_view_before(opened: Visit) -> None:
    nav = opened.page.get_by_role("navigation", name="Views")
    nav.get_by_role("link", name="Trials").click()
    assert nav.locator("[aria-current=page]").inner_text() == "Trials"
    opened.page.go_back()
    assert nav.locator("[aria-current=page]").inner_text() == "Results"
    assert board(opened).is_visible()


def test_an_address_that_names_nothing_shows_the_results(opened: Visit) -> None:
    opened.go("view=nothing&setting=&baseline=%22%3E%3Cimg%3E&sort=-&measure=none&panel=99&item=x&trial=y")
    assert board(opened).is_visible()


def test_tables_copy_as_csv_markdown_and_latex(opened: Visit, written: Written) -> None:
    buttons = opened.page.get_by_role("group", name="Copy leaderboard")
    buttons.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(opened.clipboard)))
    shown = sorted(written.data["rows"], key=in_block)
    assert [row["Method"] for row in rows] == [row["title"] for row in shown]
    assert [float(row["in_domain"]) for row in rows] == [row["scores"][0]["mean"] for row in shown]
    assert {row["block"] for row in rows} >= {block["label"] for block in written.data["blocks"]}
    opened.page.wait_for_timeout(50)
    buttons.get_by_role("button", name="Markdown").click()
    opened.page.get_by_text("as Markdown").wait_for()
    lines = opened.clipboard.splitlines()
    assert lines[1].startswith("| --- | ---:")
    assert {re.sub(r"\\.", "", line).count("|") for line in lines} == {lines[0].replace("\\|", "").count("|")}
    assert any(r"\<script\>alert(1)\</script\>" in line for line in lines)
    buttons.get_by_role("button", name="LaTeX").click()
    opened.page.get_by_text("as LaTeX").wait_for()
    latex = opened.clipboard
    assert r"\begin{tabular}" in latex
    assert r"\textless{}script\textgreater{}" in latex
    assert r"\& 'single' \textbackslash{}" in latex
    assert not re.search(r"(?<!\\)[#$%_](?![\s\S])", latex)
    assert r"$\pm$" in latex
    assert r"\dag{}" in latex


def test_hostile_names_stay_text(opened: Visit) -> None:
    for view in VIEWS:
        opened.go(f"view={view}")
        opened.page.locator("h2").first.wait_for()
        assert opened.page.locator("#explorer script, #explorer img, #explorer iframe, #explorer object").count() == 0
        assert opened.page.locator("[onerror], [onclick], [onload]").count() == 0
    opened.go("view=results")
    assert opened.page.get_by_role("heading", level=1).inner_text() == f"Which is best? {END}".strip()
    assert {SCRIPT, QUOTES} <= {title.strip() for title in titles(board(opened))}
    assert opened.page.evaluate("document.scripts.length") == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Browser, written: Written, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs `pip install axe-playwright-python`"
    )
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if scheme == "dark":
        options["runOnly"] = ["color-contrast"]  # all else is as in the light
    details = {
        "items": "&task=commonsense&item=7",
        "trials": f"&search=mosld&trial={written.data['records'][-1]['trial']}",
    }
    with visit(browser, written.file, color_scheme=scheme, reduced_motion="reduce") as opened:
        for view in VIEWS:
            opened.go(f"view={view}{details.get(view, '')}")
            opened.page.locator("h2").first.wait_for()
            faults = axe.Axe().run(opened.page, options=options).response["violations"]
            serious = [fault for fault in faults if fault["impact"] in {"serious", "critical"}]
            assert [(fault["id"], fault["nodes"][0]["html"]) for fault in serious] == [], view


def test_nothing_scrolls_sideways_on_a_phone(browser: Browser, written: Written) -> None:
    with visit(browser, written.file, size=PHONE) as opened:
        for view in VIEWS:
            opened.go(f"view={view}&item=7&trial={written.data['records'][-1]['trial']}")
            opened.page.locator("h2").first.wait_for()
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0], view


def test_dark_follows_the_system_and_the_button_and_is_kept(browser: Browser, written: Written) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    with visit(browser, written.file, color_scheme="dark") as opened:
        dark = opened.page.evaluate(colour)
        opened.page.get_by_role("button", name="Light").click()
        light = opened.page.evaluate(colour)
        assert light != dark
        opened.page.reload()
        assert opened.page.evaluate(colour) == light


def test_the_keyboard_reaches_everything_and_keeps_its_place(opened: Visit) -> None:
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.textContent") == "To the contents"
    opened.page.get_by_label("Setting").focus()
    opened.page.get_by_label("Setting").select_option("single")
    assert opened.page.evaluate("document.activeElement.tagName") == "SELECT"  # in the page that was drawn anew
    search = opened.page.get_by_label("Find a method")
    search.press_sequentially("mosl")
    assert search.input_value() == "mosl"
    focused = opened.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert focused != "none"
