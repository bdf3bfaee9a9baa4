"""The loss of a held-out text is that of a plain float64 computation, whatever the batches and the method."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mosld_bench.errors import DataError
from mosld_bench.inputs.encoding import frame
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.methods import registry
from mosld_bench.methods.live import attached_copy
from mosld_bench.records.record import EvalInfo, TextLoss
from mosld_bench.trial import text_loss as module
from mosld_bench.trial.execute import execute
from mosld_bench.trial.session import Session
from mosld_bench.trial.text_loss import text_loss
from tests.conftest import write_text
from tests.support.models import build, config, tokenizer
from tests.support.runs import prepare, timeless
from tests.support.tokenizers import shaped

DOCUMENTS = ["the cat sat on it. " * 9, "a", "which one? the apple: 12", "no", "yes, the parrot saw a ham. " * 4]
LENGTH = 24

#: What changes where a token's loss comes from: nothing, prompts before the text, experts, weights of their own.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "base": ("base", {}),
    "full": ("full", {}),
    "lora": ("peft", {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj", "v_proj"]}),
    "prefix": ("peft", {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}),
    "prompt": ("peft", {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}),
    "mosld": ("mixture", {"r": 4, "lora_alpha": 8, "experts": 4, "share": "down", "top_k": 2, "capacity": 1.0,
                          "target_modules": ["q_proj", "v_proj"], "dropout": 0.3, "dropout_on": "weight"}),
}  # fmt: skip


def task_of(folder: Path, documents: list[str]) -> Any:
    folder.mkdir(exist_ok=True)
    write_text(folder, "prose", documents)
    return TaskLoader([folder]).get("prose")


def moved(method: str) -> nn.Module:
    """A model with the method attached, its parameters moved off their start; in training mode, as after training."""
    name, params = METHODS[method]
    model = attached_copy(registry.get(name), build(config()), params, seed=0).model
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.train()


def plain_loss(model: nn.Module, ids: list[int], begin: int, length: int) -> list[float]:
    """The losses (nats, float64) of the tokens of one text: a forward for every window, by the definition.

    Token i, from the first that is predicted on, stands in window (i - first) // size of its own kind: the first window
    reads ``length`` tokens, every other one as many from the last token of the one before.
    """
    model = model.double().eval()
    first, losses, start = max(1, begin), [], 0
    while start + 1 < len(ids):
        text = ids[start : start + length + 1]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([text[:-1]])).logits[0, -(len(text) - 1) :]
        log_probabilities = logits.double().log_softmax(-1)
        for place in range(len(text) - 1):
            if start + place + 1 >= first:
                losses.append(-log_probabilities[place, text[place + 1]].item())
        start += length
    return losses


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_that_of_a_plain_float64_computation(method: str, tmp_path: Path) -> None:
    words, model = tokenizer(), moved(method)
    found = text_loss(model, words, task_of(tmp_path, DOCUMENTS), range(len(DOCUMENTS)), length=LENGTH, tokens=128)
    assert not model.training
    expected = [plain_loss(model, words(text)["input_ids"], 0, LENGTH) for text in DOCUMENTS]
    assert found.document_tokens == tuple(len(text) - 1 for text in DOCUMENTS)
    assert found.document_tokens == tuple(map(len, expected))
    assert found.document_nats == pytest.approx([sum(losses) for losses in expected], rel=1e-5, abs=1e-5)
    every = [loss for losses in expected for loss in losses]
    assert (found.task, found.documents, found.tokens) == ("prose", len(DOCUMENTS), len(every))
    assert found.nats_per_token == pytest.approx(sum(every) / len(every), rel=1e-5)


def test_behind_a_token_that_begins_a_text_its_first_token_counts(tmp_path: Path) -> None:
    words = shaped("bytes-begin")
    begin = len(frame(words).begin)
    assert begin == 1
    model = build(config(vocab_size=len(words)))
    found = text_loss(model, words, task_of(tmp_path, DOCUMENTS[:2]), [0, 1], length=LENGTH, tokens=64)
    expected = [plain_loss(model, words(text)["input_ids"], begin, LENGTH) for text in DOCUMENTS[:2]]
    assert found.document_tokens == tuple(len(words(text)["input_ids"]) - 1 for text in DOCUMENTS[:2])
    assert found.document_nats == pytest.approx([sum(losses) for losses in expected], rel=1e-5)


def test_batches_and_the_order_of_documents_change_nothing(tmp_path: Path) -> None:
    model, words = moved("mosld"), tokenizer()
    task, places = task_of(tmp_path, DOCUMENTS), list(range(len(DOCUMENTS)))
    whole = text_loss(model, words, task, places, length=LENGTH, tokens=4096)
    assert text_loss(model, words, task, places, length=LENGTH, tokens=4096) == whole
    random.Random(1).shuffle(places)
    for tokens in (1, 40, 200):
        other = text_loss(model, words, task, places, length=LENGTH, tokens=tokens)
        assert other.nats_per_token == pytest.approx(whole.nats_per_token, rel=1e-5)
        assert other.document_nats == pytest.approx([whole.document_nats[place] for place in places], rel=1e-4)


def test_a_text_without_a_token_to_predict_is_an_error(tmp_path: Path) -> None:
    task = task_of(tmp_path, ["a", "b"])
    with pytest.raises(DataError, match="'prose' has no document with a token to predict"):
        text_loss(build(config()), tokenizer(), task, [0, 1], length=LENGTH, tokens=64)


def test_a_loss_that_is_no_number_is_none(tmp_path: Path) -> None:
    model = build(config())
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    found = text_loss(model, tokenizer(), task_of(tmp_path, DOCUMENTS), [0, 3], length=LENGTH, tokens=64)
    assert (found.nats_per_token, found.document_nats, found.documents) == (None, (), 2)
    assert TextLoss.model_validate_json(found.model_dump_json()) == found


def test_of_many_documents_only_the_sum_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, model, words = task_of(tmp_path, DOCUMENTS), build(config()), tokenizer()
    every = text_loss(model, words, task, [0, 2, 4], length=LENGTH, tokens=64)
    monkeypatch.setattr(module, "_MOST_DOCUMENTS", 2)
    assert text_loss(model, words, task, [0, 2, 4], length=LENGTH, tokens=64) == every.model_copy(
        update={"document_nats": (), "document_tokens": ()}
    )


def test_a_trial_notes_the_loss_of_its_text_and_scores_as_without_it(tiny: Path) -> None:
    """Of the frozen base and of what is trained; no metric and no item is of the text."""
    write_text(tiny / "tasks", "prose", DOCUMENTS)
    _, without, plain = prepare(tiny, recipes=["lora"])
    _, planned, worker = prepare(tiny, recipes=["lora"], **{"evaluate.text": "prose"})
    session = Session(worker)
    for (trial, fit), (bare, bare_fit) in zip(planned, without, strict=True):
        first, again = (execute(trial, session, fit) for _ in range(2))
        other = execute(bare, Session(plain), bare_fit)
        assert first.record.status == other.record.status == "finished", first.record.error
        info, bare_info = first.record.eval_info, other.record.eval_info
        assert info is not None
        assert bare_info is not None
        assert info.text is not None
        assert info.text.documents == 5
        assert bare_info.text is None
        assert "text" not in bare_info.model_dump()
        assert EvalInfo.model_validate_json(info.model_dump_json()) == info
        assert timeless(first.record.model_dump(mode="json")) == timeless(again.record.model_dump(mode="json"))
        assert first.record.metrics == other.record.metrics
        assert first.items is not None
        assert other.items is not None
        assert first.items.equals(other.items)


def test_a_limit_holds_for_documents_too(tiny: Path) -> None:
    write_text(tiny / "tasks", "prose", ["abc", "defgh", "ij"])
    _, planned, worker = prepare(tiny, recipes=["lora"], **{"evaluate.text": "prose", "evaluate.limit": 2})
    record = execute(planned[0].trial, Session(worker), planned[0].fit).record
    assert record.eval_info is not None
    assert record.eval_info.text is not None
    assert record.eval_info.text.documents == 2
