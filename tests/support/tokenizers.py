"""Tokenizers of the shapes that models come with, made in milliseconds from a few sentences."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_TEXT = [
    "Question: which one is the fruit?\nAnswer: the apple",
    "the parrot saw a ham. the cat sat on the mat:\nyes",
    "Summary:\nno, the apples are 12 and 34; par, rot, parrots",
]

#: Every shape, by what it does that others do not.
SHAPES = (
    "bytes", "bytes-begin", "bytes-end", "bytes-both", "bytes-bare", "spaces", "spaces-begin", "spaces-both", "unigram",
    "across-words", "words",
)  # fmt: skip


@cache
def _pieces(kind: str) -> str:
    """A tokenizer without a post-processor, as JSON. ``kind``: of :data:`SHAPES`, before the hyphen."""
    special = ["<s>", "</s>", "<unk>"]
    model: Any = models.BPE()
    trainer: Any = trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False)
    if kind == "bytes":  # GPT-2, Llama 3, Qwen
        inner = Tokenizer(model)
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer.initial_alphabet = pre_tokenizers.ByteLevel.alphabet()
    elif kind == "spaces":  # SentencePiece: a space before the first word too (Llama 2)
        inner = Tokenizer(models.BPE(unk_token="<unk>"))
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        inner.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    elif kind == "unigram":  # SentencePiece's other model (T5, ALBERT)
        inner = Tokenizer(models.Unigram())
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        inner.decoder = decoders.Metaspace(prepend_scheme="first")
        trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False)
    elif kind == "across":  # no pieces before merging: a token may begin in one word and end in the next
        merges = [("p", "a"), ("pa", "r"), ("r", "o"), ("ro", "t"), ("par", "rot"), ("e", " ")]
        pieces = [*special, *sorted(set("".join(_TEXT))), *(left + right for left, right in merges)]
        inner = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
        inner.decoder = decoders.Fuse()
        return str(inner.to_str())
    else:  # words, and one token for all others
        inner = Tokenizer(models.WordLevel(unk_token="<unk>"))
        inner.normalizer = normalizers.Lowercase()
        inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
        trainer = trainers.WordLevelTrainer(special_tokens=special, show_progress=False)
    inner.train_from_iterator(_TEXT * 3, trainer)
    return str(inner.to_str())


def shaped(shape: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a ``shape`` of :data:`SHAPES`; its begin and end tokens are ``<s>`` and ``</s>``."""
    kind, _, frame = shape.partition("-")
    inner = Tokenizer.from_str(_pieces(kind))
    around = {"begin": "<s> $A", "end": "$A </s>", "both": "<s> $A </s>"}.get(frame)
    if around:
        tokens = [(token, inner.token_to_id(token)) for token in ("<s>", "</s>")]
        inner.post_processor = processors.TemplateProcessing(single=around, special_tokens=tokens)
    special = {} if frame == "bare" else {"bos_token": "<s>", "eos_token": "</s>"}
    if kind not in ("bytes",):
        special["unk_token"] = "<unk>"
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)
