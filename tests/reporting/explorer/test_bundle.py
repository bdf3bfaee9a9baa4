"""The bundle that is committed: of what it is made, and that it is made of what is beside it."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.records.scale import SHARE, Range, Scale
from mosld_bench.reporting import table
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "mosld_bench" / "reporting" / "explorer"
WEB, ASSETS = FOLDER / "web", FOLDER / "assets"
MOST_BYTES = 1_500_000

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node 20 or newer")


def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((WEB / "package.json").read_text())
    return found


def test_the_bundle_is_of_the_versions_that_the_manifest_names() -> None:
    banner = (ASSETS / "explorer.js").read_text().partition("*/")[0]
    named = dict(re.findall(r"(@?[\w/-]+) (\d+\.\d+\.\d+)", banner))
    pinned = manifest()["overrides"] | manifest()["dependencies"] | manifest()["devDependencies"]
    assert named == pinned
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in pinned.values())


def test_every_library_in_it_has_its_licence_beside_it() -> None:
    notices = (ASSETS / "LICENCES.txt").read_text()
    for name, version in (manifest()["overrides"] | manifest()["dependencies"]).items():
        assert f"{name} {version} (" in notices
    assert notices.count("=" * 78) == len(manifest()["overrides"] | manifest()["dependencies"])
    licences = set(re.findall(r"^\S+ \d\S+ \((\S+)\)$", notices, re.MULTILINE))
    assert licences <= {"ISC", "MIT", "BSD-3-Clause"}


def test_the_bundle_is_small_and_runs_no_code_from_text() -> None:
    script, style = ((ASSETS / name).read_text() for name in ("explorer.js", "explorer.css"))
    assert len(script.encode()) + len(style.encode()) < MOST_BYTES / 2
    for forbidden in (r"\beval\(", r"new Function\b", r"\bfetch\(", "XMLHttpRequest", r"\bimport\(", "WebSocket"):
        assert not re.search(forbidden, script), forbidden
    assert not re.search(r"url\(|@import", style)


def test_texts_never_become_markup() -> None:
    sources = {path: path.read_text() for path in sorted((WEB / "src").rglob("*.js"))}
    assert len(sources) > 15
    for path, text in sources.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser", text), path
        assert len(text.splitlines()) <= 300, path


def test_nothing_ties_it_to_a_registry() -> None:
    assert not list(WEB.glob("*lock*"))
    for path in (*WEB.glob("*.*"), *ASSETS.iterdir()):
        assert not re.search(r"registry|resolved\"", path.read_text()), path


def test_the_assets_are_in_the_package() -> None:
    assets = resources.files("mosld_bench.reporting.explorer") / "assets"
    assert {"explorer.js", "explorer.css", "LICENCES.txt"} <= {entry.name for entry in assets.iterdir()}


@needs_node
def test_numbers_are_printed_as_python_prints_them(tmp_path: Path) -> None:
    chosen = random.Random(0)
    scales = [SHARE, Scale(Range.HUNDRED), Scale(Range.CORRELATION, True, "mcc"), Scale(Range.NUMBER, False, "ppl")]
    wide = {Range.NUMBER: 4000.0, Range.HUNDRED: 100.0}
    cases = []
    for scale in scales:
        end = wide.get(scale.range, 1.0)
        ties = [k / 800 * end for k in range(-20, 400)]
        for value in ties + [chosen.uniform(-end, end) for _ in range(400)] + [0.0, -0.0, 1e-9, -1e-9]:
            decimals = None if scale.range is Range.NUMBER else scale.decimals(0)
            told = {"range": scale.range.value, "factor": scale.factor, "decimals": decimals}
            texts = [scale.text(value), scale.text(value, sign=True), scale.interval(value, value / 3)]
            cases.append([told, value, texts])
    code = tmp_path / "print.mjs"
    code.write_text(
        f"import {{ interval, score }} from {json.dumps((WEB / 'src' / 'format.js').as_uri())};\n"
        'import { readFileSync } from "node:fs";\n'
        "const cases = JSON.parse(readFileSync(process.argv[2]));\n"
        "console.log(JSON.stringify(cases.map(([scale, value]) => [score(scale, value), "
        "score(scale, value, { sign: true }), interval(scale, value, value / 3)])));\n"
    )
    data = tmp_path / "cases.json"
    data.write_text(json.dumps(cases))
    printed = json.loads(subprocess.check_output(["node", str(code), str(data)]))
    wrong = [(case, texts) for case, texts in zip(cases, printed, strict=True) if case[2] != texts]
    assert wrong == []


@needs_node
def test_latex_is_escaped_as_in_the_tables_of_the_report(tmp_path: Path) -> None:
    characters = [chr(code) for code in range(32, 127)] + sorted(table._TEX)
    code = tmp_path / "escape.mjs"
    code.write_text(
        f"import {{ texText }} from {json.dumps((WEB / 'src' / 'copy.js').as_uri())};\n"
        "console.log(JSON.stringify(JSON.parse(process.argv[2]).map((text) => texText(text))));\n"
    )
    escaped = json.loads(subprocess.check_output(["node", str(code), json.dumps([f"a{c}b" for c in characters])]))
    assert escaped == [table.tex_text(f"a{c}b") for c in characters]


@needs_node
@pytest.mark.slow
def test_the_same_sources_give_the_same_bundle(tmp_path: Path) -> None:
    if not (WEB / "node_modules").is_dir():
        pytest.skip("needs `npm install --no-package-lock` in the folder web")
    subprocess.run(["node", "build.mjs", str(tmp_path)], cwd=WEB, check=True)
    for built in tmp_path.iterdir():
        assert built.read_bytes() == (ASSETS / built.name).read_bytes(), built.name
