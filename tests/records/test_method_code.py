"""What a record notes of a method's code: which files count, whose they are, and when code is other code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.records import method_code
from mosld_bench.records.method_code import PluginCode, differing_code, plugin_code

FILES = {
    "toypack/__init__.py": "",
    "toypack/method.py": "import json\nimport torch\nfrom .parts import layer\n\nclass Toy:\n    pass\n",
    "toypack/parts/__init__.py": "",
    "toypack/parts/layer.py": "def build():\n    import toyhelper\n    from toypack import late\n",
    "toypack/late.py": "LATE = 1\n",
    "toypack/unused.py": "UNUSED = 1\n",
    "toyhelper.py": "VALUE = 1\n",
    "toyfile.py": "from toyhelper import VALUE\n\nclass Toy:\n    pass\n",
}


@pytest.fixture
def now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], PluginCode]:
    """The code of a name as a new process would find it, with `FILES` below ``tmp_path`` on the path."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def ask(name: str) -> PluginCode:
        method_code._code.cache_clear()
        return plugin_code(name)

    return ask


@pytest.mark.parametrize("name", ["toypack.method:Toy", "toyfile:Toy"])
def test_the_source_of_a_module_and_of_what_it_imports_of_its_own(
    name: str, tmp_path: Path, now: Callable[[str], PluginCode]
) -> None:
    """Where it stands, in a function too; not what lies beside it, and no library."""
    counted = {"toypack.method:Toy": set(FILES) - {"toyfile.py", "toypack/unused.py"}}.get(
        name, {"toyfile.py", "toyhelper.py"}
    )
    before = now(name)
    assert (before["name"], before["distribution"], before["version"]) == (name, None, None)
    assert before["sha256"] is not None
    for file, text in FILES.items():
        (tmp_path / file).write_text(f"{text}# changed\n")
        assert (now(name) != before) == (file in counted), file
        (tmp_path / file).write_text(text)
    assert now(name) == before
    assert not {"toypack", "toyfile", "toyhelper"} & sys.modules.keys()  # nothing was imported for it


def test_a_module_that_is_not_here_and_one_that_does_not_parse(
    tmp_path: Path, now: Callable[[str], PluginCode]
) -> None:
    assert now("no_such_toy:Toy")["sha256"] is None
    assert now("__main__:Toy")["sha256"] is None
    before = now("toyfile:Toy")
    (tmp_path / "toyhelper.py").write_text("def\n")
    assert now("toyfile:Toy") != before


@pytest.mark.parametrize("editable", [False, True])
def test_the_distribution_that_a_module_is_of(
    editable: bool, tmp_path: Path, now: Callable[[str], PluginCode], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip writes beside the modules, and what it writes of an editable install somewhere else."""
    site = tmp_path / "site" if editable else tmp_path
    info = site / "toy_dist-0.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-dist\nVersion: 0.3\n")
    (info / "RECORD").write_text("toy_dist.pth,,\n" if editable else "toypack/__init__.py,,\ntoypack/method.py,,\n")
    if editable:
        (info / "direct_url.json").write_text(json.dumps({"url": tmp_path.as_uri(), "dir_info": {"editable": True}}))
        monkeypatch.syspath_prepend(site)
    method_code._installed.cache_clear()
    code = now("toypack.method:Toy")
    method_code._installed.cache_clear()
    assert (code["distribution"], code["version"]) == ("toy-dist", "0.3")
    assert code["sha256"] is not None


def code(sha256: str | None = "aa", version: str | None = None, name: str = "toy:Toy") -> dict[str, Any]:
    return {"name": name, "distribution": "toy" if version else None, "version": version, "sha256": sha256}


def made(*plugins: dict[str, Any], version: int = 1) -> dict[str, Any]:
    return {"version": version, "plugins": list(plugins)}


@pytest.mark.parametrize(
    ("then", "now", "difference"),
    [
        (None, made(), None),
        (None, made(code()), None),  # nothing is known of it
        (None, made(version=2), "version 1 of its method, which is at version 2 now"),
        (made(version=2), made(version=2), None),
        (made(version=3), made(version=2), "version 3 of its method, which is at version 2 now"),
        (made(code()), made(code(version="0.2")), None),  # the same bytes
        (made(code()), made(code("bb")), "other code of toy:Toy than is here now"),
        (made(code(None, "0.1")), made(code("bb", "0.1")), None),  # without a digest on both sides
        (made(code(None, "0.1")), made(code("bb", "0.2")), "other code of toy:Toy than is here now"),
        (made(code()), made(), "the code of toy:Toy, where that of this package is now"),
        (made(), made(code()), "the code of this package, where that of toy:Toy is now"),
    ],
)
def test_when_code_is_other_code(then: Any, now: Any, difference: str | None) -> None:
    assert differing_code(then, now) == difference
    as_read = json.loads(json.dumps(then))
    assert differing_code(as_read, now) == difference
