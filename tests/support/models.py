"""Tiny random models and a character tokenizer for tests: no download, made in milliseconds."""

from __future__ import annotations

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz .,?:'-\n0123456789"
VOCABULARY = len(LETTERS) + 3


def config(kind: str = "llama", layers: int = 4, **more: object) -> PreTrainedConfig:
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": layers, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 256,
             "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}  # fmt: skip
    if kind == "gpt2":
        return GPT2Config(n_embd=32, n_layer=layers, n_head=4, n_positions=256, vocab_size=VOCABULARY,
                          pad_token_id=0, bos_token_id=1, eos_token_id=1, **more)  # fmt: skip
    if kind == "gpt_neo":
        return GPTNeoConfig(hidden_size=32, num_layers=2, attention_types=[[["global", "local"], 1]], num_heads=4,
                            window_size=40, vocab_size=VOCABULARY, max_position_embeddings=256,
                            pad_token_id=0, bos_token_id=1, eos_token_id=1, **more)  # fmt: skip
    if kind == "mamba":
        return MambaConfig(hidden_size=32, num_hidden_layers=layers, state_size=4, vocab_size=VOCABULARY,
                           pad_token_id=0, bos_token_id=1, eos_token_id=1, **more)  # fmt: skip
    made = {"llama": LlamaConfig, "qwen2": Qwen2Config, "mistral": MistralConfig}[kind]
    return made(**{**shape, **more})


def build(of: PreTrainedConfig, seed: int = 0, spread: float = 1.0) -> nn.Module:
    """A frozen model with weights of a spread at which its answers are not all alike."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(of)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, spread / parameter.shape[-1] ** 0.5)
    return model.requires_grad_(False).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    words = {"<pad>": 0, "<end>": 1, "<unk>": 2} | {letter: 3 + i for i, letter in enumerate(LETTERS)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", bos_token="<end>", unk_token="<unk>"
    )
