"""The data of the study that `tests.support.explorer` invents, made once for all tests that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.explorer.data import explorer_data
from mosld_bench.reporting.explorer.items import ItemFile, item_files
from mosld_bench.reporting.explorer.places import Places
from mosld_bench.reporting.explorer.plain import encoded
from tests.support.explorer import hostile_analysis


class Explored(NamedTuple):
    """An analysis and the data of its page, as a browser reads them; ``items`` by task."""

    analysis: Analysis
    data: dict[str, Any]
    items: dict[str, dict[str, Any]]


def explored(analysis: Analysis, folder: Path) -> Explored:
    files = list(item_files(analysis, Places.of(analysis)))
    data = json.loads(encoded(explorer_data(analysis, folder, files)))
    return Explored(analysis, data, {file.entry["task"]: content_of(file) for file in files})


def content_of(file: ItemFile) -> dict[str, Any]:
    """The object that a file of items hands over."""
    _, _, text = file.text.partition(f"[{json.dumps(file.entry['key'])}] = ")
    content: dict[str, Any] = json.loads(text.rstrip().removesuffix(";"))
    return content


@pytest.fixture(scope="package")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Explored:
    root = tmp_path_factory.mktemp("hostile")
    return explored(hostile_analysis(root), root)
