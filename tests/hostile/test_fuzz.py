"""Readers that are given anything: they give a value or a sentence, within bounds.

Short in the default suite; ``MOSLD_BENCH_FUZZ_SECONDS=600 pytest -n 0 -m slow tests/hostile/test_fuzz.py`` takes ten
minutes.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import struct
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mosld_bench.compat.peft import CONFIG, WEIGHTS
from mosld_bench.embedded import MODEL_DIR
from mosld_bench.errors import BenchError
from mosld_bench.inputs.adapter import read_adapter
from mosld_bench.inputs.audit import Checked, Problem, audit, refuse, whole
from mosld_bench.inputs.audit_cache import AuditCache
from mosld_bench.inputs.dataset_card import lists_configurations, trim_card
from mosld_bench.inputs.model_check import check_folder, check_sizes
from mosld_bench.inputs.models import load_base
from mosld_bench.inputs.source_note import read_note
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.records.frame import frame_of
from mosld_bench.records.items import read_items
from mosld_bench.records.lock import Holder
from mosld_bench.records.overlap import Overlap, Overlaps
from mosld_bench.records.parquet import parquet_bytes
from mosld_bench.records.published import Published
from mosld_bench.records.router import read_router
from mosld_bench.records.store import Sources, Store
from mosld_bench.records.texts import read_texts
from mosld_bench.reporting.analysis import analyse
from mosld_bench.reporting.compose import compose
from mosld_bench.reporting.explorer.data import explorer_data
from mosld_bench.reporting.explorer.overview import Best, Overview
from mosld_bench.spec.budget import Budget
from mosld_bench.spec.plain_file import read_json
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import ModelSpec
from mosld_bench.spec.tuning import read_tuning
from mosld_bench.spec.yaml_reader import read_file
from mosld_bench.trial.score import with_adapter
from tests.conftest import REPOSITORY
from tests.hostile.cases import ROWS, TASK
from tests.support.adapters import write_adapter
from tests.support.explorer import search_of
from tests.support.synthetic import (
    items_of,
    make_profile,
    make_records,
    make_scored,
    make_study,
    router_of,
    task_configs,
)

#: The data sets library leaves files open that it cannot read.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SECONDS = float(os.environ.get("MOSLD_BENCH_FUZZ_SECONDS", "60"))

PIECES = [
    b"&a ", b"*a", b"<<: ", b"!!set ", b"!function x.y", b"- ", b": ", b"? ", b"[", b"{", b"}", b"]", b"'", b'"',
    b"|\n", b"%",
    b"\xff", b"\x00", b"\xed\xa0\x80", b"\n", b"\t", b"---\n", b"...\n", b"9" * 400, b"1e999", b".nan", b"~",
    b"include: .\n",
    b"NaN", b"null", b"-1", b"\\u0000",
]  # fmt: skip

#: Keys of a study.
KEYS = [
    "name", "question", "model", "models", "recipes", "in_domain", "out_of_domain", "budgets", "seeds", "train",
    "evaluate", "parts", "ablate", "factorial", "general", "task_items", "tuning", "margin", "settings", "rates",
]  # fmt: skip

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

GONE = object()
Reader = Callable[[], object]


@dataclass(frozen=True)
class Kind:
    """Files of a kind: a good one at ``path`` below a folder, what reads it there, and in how many seconds of CPU."""

    path: str
    good: bytes
    readers: Callable[[Path], list[Reader]]
    seconds: float = 5.0

    def read(self, folder: Path, content: bytes) -> None:
        """Read ``content`` in the place of the good file, which lies there again afterwards."""
        path = folder / self.path
        try:
            path.write_bytes(content)
            for reader in self.readers(path):
                _gives_a_value_or_a_sentence(reader, self.seconds)
        finally:
            path.write_bytes(self.good)


def _settings() -> dict[str, Kind]:
    """Recipes, studies, tasks and configurations."""

    def model(path: Path) -> list[Reader]:
        return [lambda: read_json(path), lambda: check_folder("m", path.parent, weights=False)]

    config = (MODEL_DIR / "config.json").read_bytes()
    study = search_of(make_study(recipes=("lora", "mosld")))
    return {
        "recipe": Kind(
            "recipe/mosld.yaml",
            (REPOSITORY / "methods" / "mosld.yaml").read_bytes(),
            lambda path: [lambda: read_file(path), lambda: Recipe.load(path)],
        ),
        "study": Kind(
            "study/study.yaml",
            (REPOSITORY / "reports" / "embedded" / "study.yaml").read_bytes(),
            lambda path: [lambda: read_file(path), lambda: Study.load(path)],
        ),
        "task": Kind("task/toy.yaml", (REPOSITORY / "tasks" / "dialogsum.yaml").read_bytes(), _task),
        "config": Kind("config/config.json", config, model),
        "note": Kind(
            "note/provenance.json",
            (MODEL_DIR / "provenance.json").read_bytes(),
            lambda path: [lambda: read_note(path.parent)],
        ),
        "tuning": Kind("tuning/tuning.yaml", study.text().encode(), lambda path: [lambda: read_tuning(path)]),
    }


def _task(path: Path) -> list[Reader]:
    files = TaskFiles.scan((path.parent,))
    uses = (files.check, files.digest, files.check_trainable, files.foreign_code, files.config)
    return [partial(use, task) for task in files.paths for use in uses]


def _records(root: Path) -> dict[str, Kind]:
    """All that lies below results/, and what is read back from reports/ and the cache."""
    study, trials = make_records(root, ["mosld"], seeds=(0,))
    store, trial = Store(root / "results"), trials[0]
    record = store.record(trial)
    assert record is not None
    folder = store.folder(trial)
    scored = make_scored(record, "scored-x")
    overlap = Overlap(train="a", evaluated="b", n=8, train_items=9, items=9, shared=1, exact=0, example="x y")
    texts = {"task": "a", "doc": range(9), "doc_hash": "0" * 16, "prompt": "what", "options": [["a", "b"]] * 9}
    problem = Problem(task="a", split="b", field="c", problem="d", detail="", count=1, of=2, items=("x",), refused=True)
    checked = Checked(task="a", split="b", role="scored", items=9, digest="0" * 16, problems=(problem,))
    overview = Overview("s", "q", 1, 2, 3, 4, "2026-01-01", draft=False, block="", best=(Best("d", "r", "5", "x"),))

    def of_trial(path: Path) -> list[Reader]:
        return [
            lambda: frame_of([Store.read(path.parent)]),
            lambda: store.trial(trial.study, trial.id),
            lambda: list(store.records()),
            lambda: report(store.sources(study, task_configs())),
        ]

    def report(sources: Sources) -> None:
        analysis = analyse(study, trials, sources)
        compose(analysis, ())
        explorer_data(analysis, root)

    def place(file: Path) -> str:
        file.parent.mkdir(parents=True, exist_ok=True)
        return str(file.relative_to(root))

    return {
        "record": Kind(place(folder / "record.json"), record.model_dump_json(indent=1).encode(), of_trial),
        "items": Kind("items.parquet", parquet_bytes(items_of(record)), lambda path: [lambda: read_items(path)]),
        "router": Kind("router.parquet", parquet_bytes(router_of(record)), lambda path: [lambda: read_router(path)]),
        "texts": Kind("texts.parquet", parquet_bytes(pd.DataFrame(texts)), lambda path: [lambda: read_texts(path)]),
        "scored": Kind(
            place(root / "results" / scored.study / "scored-x" / "scored.json"),
            scored.model_dump_json().encode(),
            lambda path: [lambda: list(store.scored(scored.study))],
        ),
        "overlap": Kind(
            place(root / "results" / "s" / "overlap.json"),
            Overlaps(key={"a": 1}, overlaps=(overlap,)).model_dump_json().encode(),
            lambda path: [lambda: store.overlaps("s")],
        ),
        "profile": Kind(
            "results/s/profile.json",
            make_profile().model_dump_json().encode(),
            lambda path: [lambda: store.profile("s")],
        ),
        "holder": Kind(
            "holder/.held.json",
            Holder.me("mosld-bench run").model_dump_json().encode(),
            lambda path: [lambda: Holder.noted(path.parent)],
        ),
        "checked": Kind(
            "checked/key.json",
            json.dumps(asdict(checked)).encode(),
            lambda path: [lambda: AuditCache(folder=path.parent).known("key")],
        ),
        "overview": Kind(
            "overview.json", json.dumps(asdict(overview)).encode(), lambda path: [lambda: Overview.read(path)]
        ),
        "published": Kind(
            "published/table1_main.csv",
            (REPOSITORY / "results" / "published" / "table1_main.csv").read_bytes(),
            lambda path: [lambda: Published.load(path.parent)],
        ),
    }


def _data(root: Path) -> dict[str, Kind]:
    """Rows of data sets, and their cards."""

    def rows(path: Path) -> list[Reader]:
        definition = TASK.replace("path: json", f"path: {path.suffix[1:].removesuffix('l')}")
        if path.suffix == ".csv":  # which has no lists
            definition = definition.replace("doc_to_choice: options", "doc_to_choice: [a, b, cc]")
        path.with_name("toy.yaml").write_text(definition.replace("toy.jsonl", path.name))
        loader = TaskLoader([path.parent])
        return [lambda: refuse(audit(loader, whole(loader.get("toy"))))]

    def card(path: Path) -> list[Reader]:
        return [lambda: lists_configurations(path.parent), lambda: trim_card(path.parent, ["a/x.parquet"])]

    parts = "- {config_name: a, data_files: a/*}\n- {config_name: b, data_files: [{split: t, path: b}]}\n"
    front = f"---\nconfigs:\n{parts}"
    lines = [json.dumps(row) for row in ROWS]
    table = pd.DataFrame({"question": ["what", "who"] * 4, "answer": [0, 1, 2, 0] * 2})
    return {
        "rows of JSON": Kind("jsonl/toy.jsonl", "\n".join(lines).encode(), rows, 20),
        "one list of JSON": Kind("json/toy.json", f"[{','.join(lines)}]".encode(), rows, 20),
        "rows of CSV": Kind("csv/toy.csv", table.to_csv(index=False).encode(), rows, 20),
        "rows of Parquet": Kind("parquet/toy.parquet", parquet_bytes(pd.DataFrame(ROWS)), rows, 20),
        "card": Kind("card/README.md", f"{front}dataset_info:\n- {{config_name: a, x: 1}}\n---\n# It\n".encode(), card),
    }


def _weights(root: Path) -> dict[str, Kind]:
    """Adapters, and the weights of models."""
    base = load_base(ModelSpec(name="embedded"), torch.float32, "cpu")
    shutil.copytree(MODEL_DIR, root / "model")
    kinds = {}
    for recipe in ("lora", "mosld"):
        folder = root / recipe
        write_adapter(folder, recipe, model=base)

        def load(path: Path) -> list[Reader]:
            return [lambda: with_adapter(base, read_adapter(path.parent), "embedded")]

        for name in (CONFIG, WEIGHTS):
            kinds[f"{name} of {recipe}"] = Kind(f"{recipe}/{name}", (folder / name).read_bytes(), load, 25)

    def model(path: Path) -> list[Reader]:
        spec = ModelSpec(name=str(path.parent))

        def load() -> None:
            check_folder("m", path.parent, weights=True)
            load_base(spec, torch.float32, "cpu")

        return [load]

    weights = (MODEL_DIR / "model.safetensors").read_bytes()
    return kinds | {"weights": Kind("model/model.safetensors", weights, model, 25)}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close what the data sets library left open, while its warnings are expected."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Kind]]:
    """A folder with a good file of every kind."""
    root = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(REPOSITORY / "results" / "published", root / "published")
    every = _settings() | _records(root) | _data(root) | _weights(root)
    assert sorted(every) == sorted(NAMES)
    for kind in every.values():
        path = root / kind.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kind.good)
    return root, every


NAMES = [
    "recipe", "study", "task", "config", "note", "tuning", "record", "items", "router", "texts", "scored", "overlap",
    "profile", "holder", "checked", "overview", "published", "rows of JSON", "one list of JSON", "rows of CSV",
    "rows of Parquet", "card", "adapter_config.json of lora", "adapter_model.safetensors of lora",
    "adapter_config.json of mosld", "adapter_model.safetensors of mosld", "weights",
]  # fmt: skip


#: Bytes at a place (modulo the length) that are replaced, and by what, so many times.
EDITS = st.lists(
    st.tuples(
        st.integers(0, 1 << 20),
        st.integers(0, 40),
        st.sampled_from(PIECES) | st.binary(max_size=8),
        st.sampled_from([1, 1, 1, 2, 50]),
    ),
    max_size=6,
)

#: Another value at a place (modulo their number) of a JSON file, or of the head of a safetensors; or none there.
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 1 << 16), VALUES | st.sampled_from([0, -1, 2**31, 2**63, 1e308, "", [], {}]) | st.just(GONE)
    ),
    max_size=3,
)


def spoiled(kind: Kind, edits: Iterable[tuple[int, int, bytes, int]], changes: Sequence[tuple[int, Any]]) -> bytes:
    """The good file with other values, and then with other bytes."""
    content = bytearray(_with_changes(kind.good, changes) if _is_json(kind) and changes else kind.good)
    for place, length, piece, times in edits:
        place %= len(content) + 1
        content[place : place + length] = piece * times
    return bytes(content)


def _is_json(kind: Kind) -> bool:
    return Path(kind.path).suffix in {".json", ".safetensors"}


def _with_changes(good: bytes, changes: Iterable[tuple[int, Any]]) -> bytes:
    is_whole = good.lstrip()[:1] in {b"{", b"["}
    end = len(good) if is_whole else 8 + struct.unpack("<Q", good[:8])[0]
    content = json.loads(good[0 if is_whole else 8 : end])
    for place, value in changes:
        places = _places(content)
        if places:
            holder, key = places[place % len(places)]
            if value is not GONE:
                holder[key] = value
            elif isinstance(holder, dict):
                del holder[key]
    text = json.dumps(content).encode()
    return text if is_whole else struct.pack("<Q", len(text)) + text + good[end:]


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every mapping or list in ``content`` with every key or index in it."""
    found, waiting = [], [content]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        found += [(holder, key) for key in keys]
        waiting += [holder[key] for key in keys if isinstance(holder[key], dict | list)]
    return found


def _gives_a_value_or_a_sentence(reader: Reader, seconds: float = 5.0) -> None:
    began = time.process_time()
    said = "a value"
    try:
        reader()
    except BenchError as error:
        said = str(error)
    assert said.strip()
    assert time.process_time() - began < seconds


def _fuzz(examples: int) -> Callable[[Any], Any]:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks)


@pytest.mark.parametrize("name", NAMES)
def test_a_good_file_is_read(name: str, kinds: tuple[Path, dict[str, Kind]]) -> None:
    root, every = kinds
    for reader in every[name].readers(root / every[name].path):
        reader()


@pytest.mark.parametrize("name", NAMES)
@_fuzz(15)
@given(edits=EDITS, changes=CHANGES)
def test_a_broken_file_is_a_value_or_a_sentence(
    name: str, edits: Any, changes: Any, kinds: tuple[Path, dict[str, Kind]]
) -> None:
    root, every = kinds
    every[name].read(root, spoiled(every[name], edits, changes))


@_fuzz(50)
@given(content=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_a_study_of_any_values_is_one_or_a_sentence(content: dict[str, Any]) -> None:
    _gives_a_value_or_a_sentence(lambda: Study.of(**content))


@_fuzz(50)
@given(text=st.text() | st.from_regex(r"[0-9.]{1,20}[kmb%]?|[a-z]{1,9}-r[0-9]{1,9}", fullmatch=True))
def test_a_budget_is_one_or_a_sentence(text: str) -> None:
    _gives_a_value_or_a_sentence(lambda: Budget.parse(text))


@_fuzz(50)
@given(
    config=st.dictionaries(
        st.sampled_from(["hidden_size", "num_attention_heads", "num_key_value_heads", "n_layer"]), VALUES
    )
)
def test_a_configuration_has_sizes_or_a_sentence(config: dict[str, Any]) -> None:
    _gives_a_value_or_a_sentence(lambda: check_sizes("m", config))


@pytest.mark.slow
def test_the_readers_hold_for_minutes(kinds: tuple[Path, dict[str, Kind]]) -> None:
    """As above, for as long as the environment says, over all kinds by turns."""
    root, every = kinds
    end = time.monotonic() + SECONDS

    @_fuzz(200)
    @given(name=st.sampled_from(NAMES), edits=EDITS, changes=CHANGES)
    def rounds(name: str, edits: Any, changes: Any) -> None:
        every[name].read(root, spoiled(every[name], edits, changes))

    count = 0
    while time.monotonic() < end:
        rounds()
        count += 1
    assert count, SECONDS
