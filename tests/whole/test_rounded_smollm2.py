"""SmolLM2-135M in few bits on a CPU: what the bits cost, that it trains, and that what it has learnt comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mosld_bench.inputs.models import load_base, load_tokenizer
from mosld_bench.methods import registry
from mosld_bench.methods.live import attached_copy, copy_sharing_weights
from mosld_bench.methods.shared_state import SharedState, TorchSettings
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.trial import Load, ModelSpec
from tests.conftest import REPOSITORY
from tests.support.rounded import LOADS, needs_bitsandbytes

pytestmark = [needs_bitsandbytes, pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning")]
RECIPES = load_recipes(REPOSITORY / "methods")
NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"

PROSE = """\
The lighthouse keeper climbed the stairs every evening before sunset, carrying a can of oil and a clean cloth.
From the gallery he could see the fishing boats coming home, the roofs of the village, and far away, on clear days, the
hills of the mainland. He lit the lamp, wound the clockwork that turned the lens, and wrote the hour into his book. In
winter the storms lasted for days and nobody came to visit, so he read, repaired his nets, and talked to the dog. When
the new lamp was installed, which needed neither oil nor clockwork, the people asked him whether he would move to the
town. He said that someone should still look after the windows."""

#: Nats a token of the prose by which a rounded model may differ from the one that is not. Measured, of 3.84 nats: 0.21
#: worse in nf4 (of weights that were rounded to another four bits before, see `fetch_model.WHEELS`), 0.003 in int8.
COST: dict[Load, float] = {"nf4": 0.3, "int8": 0.02}


def loss(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:])


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("recipe", ["lora", "mosld", "mixlora"])
def test_it_loses_what_the_bits_cost_and_trains(model_root: Path, load: Load, recipe: str, tmp_path: Path) -> None:
    words = load_tokenizer(ModelSpec(name=NAME), model_root)
    ids = words(PROSE, return_tensors="pt").input_ids
    exact, base = (load_base(ModelSpec(name=NAME, load=it), torch.float32, "cpu", model_root) for it in (None, load))
    with torch.no_grad():
        wanted, found = loss(exact, ids).item(), loss(base, ids).item()
    assert abs(found - wanted) < COST[load], (wanted, found)
    del exact
    shared = SharedState(base, TorchSettings())
    method, params = registry.get(RECIPES[recipe].method), RECIPES[recipe].params
    model: Any = attached_copy(method, base, params, seed=0).model
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    model.train()
    for step in range(1, 6):
        method.before_step(model)
        optimizer.zero_grad()
        loss(model, ids[:, :96]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        method.after_step(model, step, 5)
    with torch.no_grad():
        logits = model.eval()(input_ids=ids).logits
        learnt = F.cross_entropy(logits[0, :95], ids[0, 1:96])
        before = F.cross_entropy(base(input_ids=ids).logits[0, :95], ids[0, 1:96])
    assert learnt < before - 0.3, (before, learnt)
    assert shared.changes() == []
    method.save(model, base, params, tmp_path)
    loaded: Any = method.load(copy_sharing_weights(base), tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, logits)
