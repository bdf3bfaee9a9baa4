"""Tiny random models and a character tokenizer for tests: no download, made in milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

#: Characters that have a token.
LETTERS = "abcdefghijklmnopqrstuvwxyz .,?:'-\n0123456789"
VOCABULARY = len(LETTERS) + 3


def config(kind: str = "llama", layers: int = 4, **more: Any) -> PreTrainedConfig:
    """The configuration of a model of width 32 for :func:`tokenizer`'s vocabulary.

    ``kind``: ``llama``, ``qwen2``, ``mistral``, ``gpt2``, ``gpt_neo`` (two layers, one with a window) or ``mamba``.
    ``more``: further keys of that kind's configuration, or other values for those set here.
    """
    special: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "vocab_size": VOCABULARY}
    if kind == "gpt2":
        return GPT2Config(**{"n_embd": 32, "n_layer": layers, "n_head": 4, "n_positions": 256} | special | more)
    if kind == "gpt_neo":
        shape = {"hidden_size": 32, "num_layers": 2, "attention_types": [[["global", "local"], 1]], "num_heads": 4,
                 "window_size": 40, "max_position_embeddings": 256}  # fmt: skip
        return GPTNeoConfig(**shape | special | more)
    if kind == "mamba":
        return MambaConfig(**{"hidden_size": 32, "num_hidden_layers": layers, "state_size": 4} | special | more)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": layers, "num_attention_heads": 4,
             "num_key_value_heads": 2, "max_position_embeddings": 256}  # fmt: skip
    family = {"llama": LlamaConfig, "qwen2": Qwen2Config, "mistral": MistralConfig}[kind]
    return family(**shape | special | more)


def build(configuration: PreTrainedConfig, seed: int = 0, spread: float = 1.0) -> PreTrainedModel:
    """A frozen model in evaluation mode, with random weights of a ``spread`` at which its answers are not all alike.

    Typed as the transformers class, which mypy takes for ``Any``: a test may call it and reach into it.
    """
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(configuration)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, spread / parameter.shape[-1] ** 0.5)
    return model.requires_grad_(False).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token a character of :data:`LETTERS`, and three special ones."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    words = {"<pad>": 0, "<end>": 1, "<unk>": 2} | {letter: 3 + i for i, letter in enumerate(LETTERS)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", bos_token="<end>", unk_token="<unk>"
    )
