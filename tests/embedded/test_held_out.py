"""The held-out text of the embedded model: what ships is what the writers make, and none of it was seen before."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from mosld_bench.embedded import MODEL_DIR, held_out, pretrain
from mosld_bench.embedded.items import DATA_DIR


@pytest.fixture(scope="module")
def shipped() -> list[str]:
    return [str(text) for text in pq.read_table(DATA_DIR / held_out.FILE)["text"].to_pylist()]


def test_no_document_is_one_of_pre_training(shipped: list[str]) -> None:
    seen = held_out.pretraining_documents()
    assert shipped == held_out.documents(seen)
    assert not seen & set(shipped)
    assert len(shipped) == len(set(shipped)) == held_out.DOCUMENTS
    assert held_out.SEED != pretrain.SEED


def test_every_word_is_known_to_the_model(shipped: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    assert all(tokenizer.unk_token_id not in tokenizer(text)["input_ids"] for text in shipped)
