"""The page: one file that loads nothing, in which no name is anything but text."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.format import one_line
from mosld_bench.reporting import build
from mosld_bench.reporting.explorer import page as page_module
from mosld_bench.reporting.explorer.overview import write_index
from mosld_bench.reporting.explorer.page import page_text, write_page
from mosld_bench.reporting.explorer.plain import Exact, encoded
from tests.reporting.explorer.conftest import Explored
from tests.support.explorer import END, QUOTES, SCRIPT

#: What no page here may have: elements that load or run something, or leave the page's own address.
_NEVER = {"img", "iframe", "object", "embed", "base", "form", "link", "svg", "video", "audio"}


class Elements(HTMLParser):
    """The elements of a page in their order, with their attributes and what stands in them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.comments = 0
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.texts.append("")
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data

    def handle_comment(self, data: str) -> None:
        self.comments += 1

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attrs, text) for (name, attrs), text in zip(self.found, self.texts, strict=True) if name == tag]


@pytest.fixture(scope="module")
def page(hostile: Explored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(hostile.analysis, tmp_path_factory.mktemp("pages") / "reports" / "synthetic")


def test_hostile_names_stay_text(hostile: Explored, page: Path) -> None:
    elements = Elements(page.read_text(encoding="utf-8"))
    (blob, data), (bundle, script) = elements.of("script")
    assert blob == {"type": "application/json", "id": "explorer-data"}
    assert bundle == {}
    assert script == page_module._asset("explorer.js")
    assert not {tag for tag, _ in elements.found} & _NEVER
    assert elements.comments == 0
    told = json.loads(data)
    titles = {recipe["title"] for recipe in told["recipes"]}
    assert {SCRIPT, QUOTES} < titles
    assert told["study"]["question"] == one_line(hostile.analysis.study.question)
    assert told["study"]["about"] == f"{SCRIPT} {QUOTES}"
    ((_, title),) = elements.of("title")
    assert title == f"synthetic: {one_line(hostile.analysis.study.question)}"
    assert not any(name.startswith("on") for _, attrs in elements.found for name in attrs)


def test_the_data_cannot_end_what_it_stands_in() -> None:
    text = encoded({"a": f"{END}<!--]]>&amp;\u2029\ud800", "b": [float("nan"), float("inf"), 1 / 3, 2.0, -0.0]})
    assert not set(text) & set("<>&\u2028\u2029")
    told = json.loads(text)
    assert told["a"].startswith(END)
    assert told["b"] == [None, None, 0.3333333, 2, 0]
    assert encoded(Exact({"x": 1 / 3, "y": 2.0})) == '{"x":0.3333333333333333,"y":2.0}'


def test_items_are_scripts_of_one_object(page: Path) -> None:
    files = sorted((page.parent / "items").iterdir())
    assert [path.name for path in files] == ["0.js", "1.js", "2.js"]
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert re.match(r'\(window\.mosldBenchItems = window\.mosldBenchItems \|\| \{\}\)\["\d"\] = \{', text)
        assert not set(text) & set("<>&\u2028\u2029")
        assert text.count("\n") == 1


def test_only_the_bundle_and_files_beside_the_page_may_run(page: Path) -> None:
    elements = Elements(page.read_text(encoding="utf-8"))
    policies = [attrs["content"] for attrs, _ in elements.of("meta") if "http-equiv" in attrs]
    script = elements.of("script")[1][1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = policies
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}' 'self' file:;" in policy
    assert "unsafe-eval" not in policy
    addresses = [attrs[key] for _, attrs in elements.found for key in ("src", "href") if key in attrs]
    assert addresses == ["report.pdf"]


def test_a_browser_without_scripts_shows_the_main_table(hostile: Explored, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    inside = Elements(text[text.index("<noscript>") : text.index("</noscript>")])
    heads = [text for _, text in inside.of("th")]
    assert {"Method", "Frozen base", SCRIPT, QUOTES, "Out-of-domain: Mean"} <= set(heads)
    lora = next(row for row in hostile.data["rows"] if row["id"].startswith("lora/mixture"))
    mean, sd = lora["scores"][0]["mean"], lora["scores"][0]["sd"]
    assert any(text.startswith(f"{100 * mean:.1f} ± {100 * sd:.1f}") for _, text in inside.of("td"))


def test_what_stands_in_the_bundle_cannot_end_its_element(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "explorer.js").write_text('const a = "</script><!-- b";')
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    assert page_module._asset("explorer.js") == 'const a = "<\\/script><\\!-- b";'


def test_the_same_records_give_the_same_bytes(hostile: Explored, page: Path) -> None:
    content = {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    (page.parent / "items" / "9.js").write_text("of an earlier report")
    assert write_page(hostile.analysis, page.parent) == page
    assert {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()} == content


def test_what_lies_beside_the_page_is_linked(hostile: Explored, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "main.csv").write_text("")
    (tmp_path / "report.pdf").write_text("")
    text = write_page(hostile.analysis, tmp_path).read_text(encoding="utf-8")
    study = json.loads(Elements(text).of("script")[0][1])["study"]
    assert (study["pdf"], study["tables"]) == ("report.pdf", [{"name": "main", "file": "tables/main.csv"}])


def test_a_page_that_cannot_be_made_loses_nothing_else(
    hostile: Explored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> Path:
        raise ValueError(f"no luck {SCRIPT}")

    monkeypatch.setattr(build, "write_page", fails)
    with caplog.at_level(logging.ERROR):
        build._write_page(hostile.analysis, tmp_path)
    assert "could not be made" in caplog.text
    elements = Elements((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert elements.of("script") == []
    assert any("no luck <script>" in text for _, text in elements.of("p"))


def test_the_page_over_all_studies(hostile: Explored, page: Path) -> None:
    reports = page.parent.parent
    for name, question in (("kept", f"Kept? {SCRIPT}"), ("declared", "?")):
        (reports / name).mkdir()
        (reports / name / "study.yaml").write_text(f"question: {json.dumps(question)}\n")
    (reports / "kept" / "report.pdf").write_text("")
    (reports / "damaged").mkdir()
    (reports / "damaged" / "index.html").write_text("")
    (reports / "damaged" / "overview.json").write_text("[1]")
    elements = Elements(write_index(reports).read_text(encoding="utf-8"))
    assert elements.of("script") == []
    names = [text for attrs, text in elements.of("th") if attrs.get("scope") == "row"]
    assert names == ["damaged", "kept", "synthetic"]
    links = [attrs["href"] for attrs, _ in elements.of("a")]
    assert links == ["damaged/index.html", "kept/report.pdf", "synthetic/index.html"]
    cells = [text for _, text in elements.of("td")]
    assert f"Kept? {SCRIPT}" in cells
    assert "48 of 49" in cells
    assert any("1 failed" in text for _, text in elements.of("small"))
    best = hostile.data["rows"][next(b for b in hostile.data["blocks"] if b["kind"] == "size")["best"][0]]
    assert any(f"In-domain: {best['title']}" in text for text in cells)


def test_a_report_that_was_asked_for_elsewhere_has_no_index(hostile: Explored, page: Path, tmp_path: Path) -> None:
    assert (page.parent.parent / "index.html").is_file()
    write_page(hostile.analysis, tmp_path / "elsewhere")
    write_page(hostile.analysis, tmp_path / "reports" / "another")
    assert not list(tmp_path.glob("index.html")) + list(tmp_path.glob("reports/index.html"))


def test_a_surrogate_in_a_name_is_no_end(hostile: Explored, tmp_path: Path) -> None:
    study = hostile.analysis.study.model_copy(update={"question": "lone \ud800 surrogate"})
    analysis = replace(hostile.analysis, study=study)
    text = page_text(analysis, {"study": {"question": study.question}})
    assert "lone" in text.encode("utf-8").decode("utf-8")
