"""Tasks whose items differ from process to process are found out."""

from __future__ import annotations

from pathlib import Path

import pytest

from mosld_bench.errors import DataError
from mosld_bench.inputs.audit import audit, whole
from mosld_bench.inputs.audit_cache import AuditCache
from mosld_bench.inputs.steadiness import check_steady, may_vary
from mosld_bench.inputs.tasks import TaskLoader
from tests.conftest import REPOSITORY
from tests.inputs.test_audit import CHOICE, define, rows

pytestmark = pytest.mark.usefixtures("code_allowed")

SPLITS = {"train": rows("train"), "test": rows("test")}
CODE = {
    "generator": "import random\ndef docs(data):\n    order = list(range(len(data)))\n    random.shuffle(order)\n"
    "    return data.select(order)\n",
    "set": "def docs(data):\n    order = {data[i]['id']: i for i in range(len(data))}\n"
    "    return data.select([order[name] for name in set(order)])\n",
    "own generator": "import random\ndef docs(data):\n    order = list(range(len(data)))\n"
    "    random.Random(0).shuffle(order)\n    return data.select(order)\n",
}


def loader_of(folder: Path, code: str) -> TaskLoader:
    folder.mkdir(exist_ok=True)
    (folder / "helper.py").write_text(code)
    loader = define(folder, CHOICE, SPLITS)
    path = folder / "asked.yaml"
    path.write_text(path.read_text().removesuffix("}") + ', "process_docs": !function helper.docs}')
    return TaskLoader(loader.folders)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CODE)
def test_an_order_that_is_another_in_another_process_is_refused(kind: str, tmp_path: Path) -> None:
    loader = loader_of(tmp_path, CODE[kind])
    uses = whole(loader.get("asked"))
    assert may_vary(loader.get("asked"))
    found = audit(loader, uses)
    cache = AuditCache(folder=tmp_path / "cache")
    if kind == "own generator":
        for _ in range(2):  # the second time from what was kept
            check_steady(loader, uses, found, known=cache.known, keep=cache.keep)
        assert list((tmp_path / "cache").glob("steady-*"))
    else:
        with pytest.raises(DataError, match=r"The items of asked \(.*\) differ from process to process"):
            check_steady(loader, uses, found, known=cache.known, keep=cache.keep)


def test_a_task_without_code_is_not_tried_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = define(tmp_path, CHOICE, SPLITS)
    uses = whole(loader.get("asked"))
    monkeypatch.setattr("mosld_bench.inputs.steadiness._elsewhere", None)
    check_steady(loader, uses, audit(loader, uses))
    random_option = define(tmp_path, {**CHOICE, "doc_to_text": "{{options | random}}"}, SPLITS, "drawn")
    assert may_vary(random_option.get("drawn"))


def test_functions_of_metrics_alone_make_no_task_vary(miniature: Path) -> None:
    assert not may_vary(TaskLoader([REPOSITORY / "tasks"], miniature).get("dialogsum"))
