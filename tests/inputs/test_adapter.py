"""An adapter folder is looked at before any weights are: what it is, whose, and why it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.errors import BenchError, ModelError, UnknownNameError
from mosld_bench.inputs.adapter import check_base, find_adapter, read_adapter
from mosld_bench.inputs.model_source import licence, public_name, public_revision
from mosld_bench.spec.trial import ModelSpec


def _folder(folder: Path, base: str | None = "org/model", **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"peft_type": "LORA", "base_model_name_or_path": base, "r": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def test_a_folder_is_read_without_its_weights(tmp_path: Path) -> None:
    adapter = read_adapter(_folder(tmp_path / "trial-7" / "adapter"))
    assert (adapter.peft_type, adapter.base, adapter.name) == ("LORA", "org/model", "trial-7")
    assert read_adapter(_folder(tmp_path / "mine")).name == "mine"
    assert read_adapter(_folder(tmp_path / "ours", peft_type="LORA_MIXTURE")).peft_type == "LORA_MIXTURE"


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    def refusal(folder: Path) -> str:
        with pytest.raises(BenchError) as refused:
            read_adapter(folder)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    assert "There is no folder" in refusal(tmp_path / "nowhere")
    (tmp_path / "whole").mkdir()
    assert "adapter_model.safetensors" in refusal(tmp_path / "whole")
    (tmp_path / "whole" / "config.json").write_text("{}")
    assert f"give it as MODEL ({tmp_path / 'whole'})" in refusal(tmp_path / "whole")
    for text in ("{", "[]", "{}"):
        (tmp_path / "whole" / "adapter_config.json").write_text(text)
        assert "is no configuration of an adapter" in refusal(tmp_path / "whole")
    assert "no PEFT type named 'LOAR'" in refusal(_folder(tmp_path / "typo", peft_type="LOAR"))
    assert "XLORA, which cannot be scored" in refusal(_folder(tmp_path / "x", peft_type="XLORA"))
    pickled = _folder(tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    assert "only adapter_model.bin, and pickles are not read" in refusal(pickled)
    assert UnknownNameError.__mro__[1] is BenchError


def test_one_on_the_hub_is_had_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def snapshot(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in allow_patterns)
        asked.append((name, revision))
        return str(_folder(tmp_path / "snapshots" / "0123abc"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    adapter = find_adapter("owner/my-lora")
    assert (adapter.name, adapter.place, adapter.peft_type) == ("my-lora", "owner/my-lora", "LORA")
    pinned = find_adapter("owner/my-lora@refs/pr/1")
    assert (pinned.name, pinned.place) == ("my-lora", "owner/my-lora@refs/pr/1")
    assert asked == [("owner/my-lora", None), ("owner/my-lora", "refs/pr/1")]
    monkeypatch.chdir(tmp_path)
    _folder(tmp_path / "owner" / "my-lora")
    assert find_adapter("owner/my-lora").folder == Path("owner/my-lora"), "a folder of that name comes first"
    assert len(asked) == 2
    with pytest.raises(ModelError, match="'other/model' is to be scored with it"):
        check_base(adapter, ModelSpec(name="other/model"), None)


@pytest.mark.parametrize("given", ["./owner/name", "/nowhere/at/all", "a/b/c", "~/x/y", "name", "../x", "owner/-x"])
def test_a_path_is_never_looked_for_on_the_hub(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *words, **options: pytest.fail("asked the hub"))
    with pytest.raises(ModelError, match="There is no folder"):
        find_adapter(given)


def test_what_the_hub_does_not_give_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"There is no folder owner/name, and of the hub nothing came .* or a hub id"):
        find_adapter("owner/name")


@pytest.mark.parametrize(
    ("named", "asked", "doubt"),
    [
        ("org/model", "org/model", False),
        ("model", "org/model", False),  # trained on a folder of that name
        ("org/Model", "model", False),
        ("/home/somebody/model", "org/model", False),
        ("/home/somebody/weights", "org/model", True),
        ("./weights", "org/model", True),
        (None, "org/model", True),
    ],
)
def test_names_tell_whose_it_is(named: str | None, asked: str, doubt: bool, tmp_path: Path) -> None:
    said = check_base(read_adapter(_folder(tmp_path, named)), ModelSpec(name=asked), None)
    assert (said is not None) == doubt
    assert not doubt or "cannot be told" in str(said)


@pytest.mark.parametrize(("named", "asked"), [("org/model", "org/other"), ("org/model", "embedded"),
                                              ("embedded", "org/model"), ("other/model", "org/model")])  # fmt: skip
def test_an_adapter_of_another_model_is_refused(named: str, asked: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"is of the base model '{named}', and '{asked}' is to be scored") as refused:
        check_base(read_adapter(_folder(tmp_path, named)), ModelSpec(name=asked), None)
    assert "base_model_name_or_path" in str(refused.value)


def test_models_have_a_name_that_is_no_path(tmp_path: Path) -> None:
    """Of a fetched folder the hub's; the licence is that of the card beside it, if there is one."""
    folder = tmp_path / "org" / "copy"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    spec = ModelSpec(name="copy", folder=str(folder))
    assert (public_name(spec), licence(spec)) == ("copy", None)
    (folder / "provenance.json").write_text(json.dumps({"source": "hub:org/model", "revision": "abc"}))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    assert (public_name(spec), licence(spec)) == ("org/model", "mit")
    assert public_name(ModelSpec(name="org/copy"), tmp_path) == "org/model"
    assert public_name(ModelSpec(name="embedded")) == "embedded"
    assert public_revision(ModelSpec(name="org/model", revision="abc")) == "abc"
    assert public_revision(spec.model_copy(update={"revision": "abc"})) is None
    assert licence(ModelSpec(name="embedded")) == "apache-2.0"
    assert licence(ModelSpec(name="no-such/model-here")) is None
