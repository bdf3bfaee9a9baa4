"""Pre-train the embedded model from nothing: `python -m mosld_bench.embedded.pretrain --out DIR [--steps N]`.

Writes a folder that AutoModelForCausalLM and AutoTokenizer load, with provenance.json to say how it was made.
"""

import argparse
import hashlib
import itertools
import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mosld_bench.embedded import items, text

SEED = 1
STEPS = 2800
STEP_DOCUMENTS = 48
STEP_GROUPS = 3  # forwards of a step, each with documents of like length
PEAK_RATE, FINAL_RATE = 3e-3, 1e-4  # learning rates
WARMUP_STEPS = 100
SPECIAL_TOKENS = ["<pad>", "<unk>", "<eos>"]


def vocabulary() -> list[str]:
    """Every word of the tasks and of a good deal of pre-training text, in alphabetical order."""
    words: set[str] = set()
    for document in itertools.islice(text.documents(SEED), 40_000):
        words.update(document.split())
    for name, task in items.TASKS.items():
        for split in ["train", "test"] if task.train else ["test"]:
            for row in items.rows(name, split):
                item = f"question: {row['story']} {row['question']} answer: {row['choices']}"
                words.update(re.findall(r"\w+|[^\w\s'\[\]]", item.lower()))
    return [*SPECIAL_TOKENS, *sorted(words)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each word and punctuation mark; spaces carry nothing, so texts join at any space."""
    vocab = {word: i for i, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def build_model(vocab_size: int) -> LlamaForCausalLM:
    """A Llama of about 0.9 million parameters, with half as many key-value heads as heads."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            # At the usual 0.02 a model this small never learns to copy from its context.
            initializer_range=0.08,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=2,
        )
    )
    with torch.no_grad():
        _look_back(model)
        for layer in model.model.layers[1:]:
            _match_alike(layer.self_attn)
    return model


# Starting values shaped after what trained models of this kind tend to have. In short runs they lowered the loss;
# what each part is worth was not measured one by one.


def _by_head(weight: torch.Tensor, width: int) -> torch.Tensor:
    """A view of a projection by head, halved, so that dimensions turned together lie one above another."""
    return weight.view(-1, 2, width // 2, weight.shape[1])


def _shared(weight: torch.Tensor, attention: Any) -> torch.Tensor:
    """The rows of each key-value head, once for each of the heads that share it."""
    heads = weight.view(-1, attention.head_dim, weight.shape[1])
    return heads.repeat_interleave(attention.num_key_value_groups, 0).flatten(0, 1)


def _look_back(model: Any, constant: float = 0.5, strength: float = 0.9) -> None:
    """Start the first layer's heads looking one, two, three and four words back, all of them writing alike.

    A coordinate with the same value for every word carries the position: its query, turned by the distance,
    meets its key. Only the fast turning dimensions tell neighbours apart.
    """
    model.model.embed_tokens.weight[:, 0] = constant
    attention = model.model.layers[0].self_attn
    turns = model.model.rotary_emb.inv_freq[: attention.head_dim // 4]
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight.mul_(0.5)  # what the words are matters less here
        projection.weight[:, 0] = 0.0
    _by_head(attention.k_proj.weight, attention.head_dim)[:, 0, : len(turns), 0] = strength
    for back, query in enumerate(_by_head(attention.q_proj.weight, attention.head_dim), start=1):
        query[0, : len(turns), 0] = strength * (turns * back).cos()
        query[1, : len(turns), 0] = -strength * (turns * back).sin()
    value = attention.v_proj.weight.view(-1, attention.head_dim, attention.v_proj.in_features)
    value[1:] = value[0].clone()
    attention.o_proj.weight.copy_(0.5 * _shared(attention.v_proj.weight, attention).T)


def _match_alike(attention: Any, share: float = 0.9) -> None:
    """Start with queries like keys and outputs like transposed values: words attend to their like, and copy.

    The slowly turning dimensions are made to weigh more, for they compare words at any distance.
    """
    attention.q_proj.weight.lerp_(_shared(attention.k_proj.weight, attention), share)
    attention.o_proj.weight.lerp_(_shared(attention.v_proj.weight, attention).T, share)
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight[:, 0] = 0.0
        heads = _by_head(projection.weight, attention.head_dim)
        heads[:, :, : attention.head_dim // 4] *= 0.2
        heads[:, :, attention.head_dim // 4 :] *= 1.7


def batches(tokenizer: PreTrainedTokenizerFast, documents: int, seed: int) -> Iterator[list[torch.Tensor]]:
    """The documents of each step, one a row and padded at the end, in groups of like length.

    Documents never share a row: looking things up is easier to learn in a context free of other texts.
    """
    stream = text.documents(seed)
    while True:
        drawn = tokenizer(list(itertools.islice(stream, documents)))["input_ids"]
        rows = sorted(([*ids, tokenizer.eos_token_id] for ids in drawn), key=len)
        size = -(-len(rows) // STEP_GROUPS)
        groups = [rows[i : i + size] for i in range(0, len(rows), size)]
        yield [
            torch.tensor([row + [tokenizer.pad_token_id] * (len(group[-1]) - len(row)) for row in group])
            for group in groups
        ]


def rate(step: int, steps: int) -> float:
    """The learning rate of ``step``: a linear rise, then a half cosine, by steps so that a run can be repeated."""
    if step < WARMUP_STEPS:
        return PEAK_RATE * (step + 1) / WARMUP_STEPS
    done = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return FINAL_RATE + (PEAK_RATE - FINAL_RATE) * (1 + math.cos(math.pi * done)) / 2


def pretrain(out: Path, *, steps: int = STEPS, documents: int = STEP_DOCUMENTS, seed: int = SEED) -> float:
    """Train, save into the folder ``out``, and return the mean loss, in nats a token, of the last 100 steps.

    ``documents``: of a step.
    """
    torch.manual_seed(seed)
    started = time.perf_counter()
    tokenizer = build_tokenizer()
    model = build_model(len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    losses: list[float] = []
    tokens = 0
    model.train()
    for step, groups in enumerate(itertools.islice(batches(tokenizer, documents, seed), steps)):
        for setting in optimizer.param_groups:
            setting["lr"] = rate(step, steps)
        size = sum(int((ids[:, 1:] != tokenizer.pad_token_id).sum()) for ids in groups)
        losses.append(0.0)
        for ids in groups:
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
            loss = cross_entropy(logits, ids[:, 1:].flatten(), ignore_index=tokenizer.pad_token_id, reduction="sum")
            torch.autograd.backward(loss / size)
            losses[-1] += loss.item() / size
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += size
        if step % 100 == 99:
            print(f"step {step + 1} of {steps}, loss {sum(losses[-100:]) / 100:.4f}", flush=True)
    final = sum(losses[-100:]) / len(losses[-100:])

    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    record = {
        "source": "made by this package",
        "command": f"python -m mosld_bench.embedded.pretrain --steps {steps}",
        "steps": steps,
        "tokens": tokens,
        "seconds": round(time.perf_counter() - started, 1),
        "threads": torch.get_num_threads(),
        "seed": seed,
        "final_loss": round(final, 4),
        "parameters": model.num_parameters(),
        "sha256": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, tokenizers)},
    }
    (out / "provenance.json").write_text(json.dumps(record, indent=2) + "\n")
    return final


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pretrain(arguments.out, steps=arguments.steps)
