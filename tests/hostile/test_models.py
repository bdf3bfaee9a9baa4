"""Folders of models that contradict themselves, are broken off, or reach out of the folder."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.embedded import MODEL_DIR
from tests.hostile.cases import NO_JSON, Case, Content, folder, pipe, table
from tests.hostile.conftest import Refused

PLAN = ("plan", "s", "--model", "./model")
RUN = ("run", "s", "--executor", "inline", "--model", "./model")
CONFIG: dict[str, Any] = json.loads((MODEL_DIR / "config.json").read_text())
WEIGHTS = (MODEL_DIR / "model.safetensors").read_bytes()
HEAD_BYTES = struct.unpack("<Q", WEIGHTS[:8])[0]
HEAD: dict[str, Any] = json.loads(WEIGHTS[8 : 8 + HEAD_BYTES])
NAMES = [name for name in HEAD if name != "__metadata__"]


def _config(**keys: Any) -> Case:
    return Case(f"config: {str(keys)[:70]}", PLAN, {"model/config.json": json.dumps(CONFIG | keys)})


def _weights(name: str, content: Content) -> Case:
    return Case(f"weights: {name}", RUN, {"model/model.safetensors": content})


def _head(name: str, change: Callable[[dict[str, Any]], object]) -> Case:
    head = json.loads(json.dumps(HEAD))
    change(head)
    text = json.dumps(head).encode()
    return _weights(name, struct.pack("<Q", len(text)) + text + WEIGHTS[8 + HEAD_BYTES :])


def _index(name: str, content: Any) -> Case:
    files: dict[str, Content | None] = {
        "model/model.safetensors": None,
        "model/part.safetensors": WEIGHTS,
        "outside.safetensors": WEIGHTS,
        "model/model.safetensors.index.json": content if isinstance(content, str) else json.dumps(content),
    }
    return Case(f"index: {name}", RUN, files)


def _everywhere(place: Any) -> dict[str, Any]:
    return {"metadata": {}, "weight_map": dict.fromkeys(NAMES, place)}


MODELS = [
    *(Case(f"config.json: {name}", PLAN, {"model/config.json": content}) for name, content in NO_JSON.items()),
    *(Case(f"provenance.json: {name}", RUN, {"model/provenance.json": content}) for name, content in NO_JSON.items()),
    Case("provenance.json: a source that is none", RUN, {"model/provenance.json": '{"source": 5}'}),
    Case("provenance.json: a revision that is none", RUN, {"model/provenance.json": '{"revision": [1]}'}),
    Case("config.json: a pipe", PLAN, {"model/config.json": pipe}),
    Case("config.json: a folder", PLAN, {"model/config.json": folder}),
    *(_config(num_hidden_layers=value) for value in (-1, 0, 10**6, "four", 1.5, [4], True)),
    *(_config(hidden_size=value) for value in (-128, 0, 127, 10**9, "wide")),
    *(_config(num_attention_heads=value) for value in (0, 3, -4, 10**9)),
    *(_config(num_key_value_heads=value) for value in (0, 3, -2, 10**9)),
    *(_config(vocab_size=value) for value in (-5, "many", 10**12, None)),
    *(_config(head_dim=value) for value in (-32, 0, 10**9)),
    *(_config(intermediate_size=value) for value in (-1, 10**12)),
    *(_config(max_position_embeddings=value) for value in (-1, 10**15, "long")),
    *(_config(hidden_act=value) for value in ("nothing", [1])),
    *(_config(model_type=value) for value in ("nothing", "t5", 5, None)),
    *(_config(rope_parameters=value) for value in (5, {"rope_type": "nothing"})),
    _config(model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}),
    _config(_attn_implementation="somebody/code"),
    _config(dtype="nothing"),
    _config(model_type="gpt2", n_layer=10**6),
    _config(model_type="mixtral", num_local_experts=-1),
    _weights("empty", b""),
    _weights("broken off", WEIGHTS[:1_000]),
    _weights("broken off near the end", WEIGHTS[:-1_000]),
    _weights("zeros", bytes(len(WEIGHTS))),
    _weights("a head of any length", b"\xff" * 8 + WEIGHTS[8:]),
    _weights("a pickle", b"\x80\x04cposix\nsystem\n(S'touch it-ran'\ntR."),
    _weights("a folder", folder),
    _weights("a pipe", pipe),
    Case("weights: gone", RUN, {"model/model.safetensors": None}),
    Case("weights: a pickle alone", RUN, {"model/model.safetensors": None, "model/pytorch_model.bin": b"\x80\x04."}),
    _head("of another shape", lambda head: head[NAMES[0]].update(shape=[1, 1])),
    _head("of a shape below none", lambda head: head[NAMES[0]].update(shape=[-1, 5])),
    _head("of a shape beyond memory", lambda head: head[NAMES[0]].update(shape=[2**62, 2**62])),
    _head("of an unknown type", lambda head: head[NAMES[0]].update(dtype="Q9")),
    _head("beyond the end", lambda head: head[NAMES[0]].update(data_offsets=[0, 10**12])),
    _head("backwards", lambda head: head[NAMES[0]].update(data_offsets=[500, 0])),
    _index("outside", _everywhere("../outside.safetensors")),
    _index("a password file", _everywhere("/etc/passwd")),
    _index("gone", _everywhere("nothing.safetensors")),
    _index("a pickle", _everywhere("part.bin")),
    _index("a number", _everywhere(5)),
    _index("no map", {}),
    _index("a list", []),
    _index("half", "{"),
]


@pytest.mark.parametrize("case", table(*MODELS))
def test_folders_of_models_are_refused(case: Case, refused: Refused) -> None:
    refused(case)


def _with_tensors(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(MODEL_DIR / "model.safetensors")
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return write


@pytest.mark.parametrize("kind", ["another shape", "one lacking"])
def test_weights_that_do_not_fit_are_no_model(kind: str, workspace: Path) -> None:
    import torch

    from mosld_bench.errors import ModelError
    from mosld_bench.inputs import load_base
    from mosld_bench.spec.trial import ModelSpec

    name = next(name for name in NAMES if ".layers.2." in name)
    change = {"another shape": lambda tensors: tensors.update({name: torch.zeros(3, 3)}),
              "one lacking": lambda tensors: tensors.pop(name)}[kind]  # fmt: skip
    _with_tensors(change)(workspace / "model" / "model.safetensors")
    with pytest.raises(ModelError):
        load_base(ModelSpec(name="model", folder=str(workspace / "model")), torch.float32, "cpu")


def test_a_sharded_model_in_its_folder_is_loaded(workspace: Path) -> None:
    import torch

    from mosld_bench.inputs import load_base
    from mosld_bench.spec.trial import ModelSpec

    _index("fine", _everywhere("part.safetensors")).prepare(workspace)
    spec = ModelSpec(name="model", folder=str(workspace / "model"))
    assert sum(parameter.numel() for parameter in load_base(spec, torch.float32, "cpu").parameters()) == 903_936
