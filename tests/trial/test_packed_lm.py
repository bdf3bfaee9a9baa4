"""Our lm-eval model gives what lm-eval's own model class gives."""

from __future__ import annotations

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mosld_bench.trial.packed_lm import PackedLM
from tests.support.models import build, config, tokenizer


def test_equal_to_lm_evals_own_model() -> None:
    model, words = build(config()), tokenizer()
    pairs = [
        ("the cat", " sat"),
        ("the cat", " ran off"),
        ("a dog ", "barks"),
        ("", "alone"),
        ("the cat sat. who?", " it"),
    ]
    instances = [Instance("loglikelihood", {}, pair, 0, ("t", 0, 1)) for pair in pairs]
    theirs = HFLM(pretrained=model, tokenizer=words, batch_size=2).loglikelihood(instances, disable_tqdm=True)
    for packed in (True, False):
        ours = PackedLM(model, words, packed=packed).loglikelihood(instances)
        for (expected, greedy), (value, value_greedy) in zip(theirs, ours, strict=True):
            assert value == pytest.approx(expected, abs=1e-4)
            assert value_greedy == greedy
    rolling = [Instance("loglikelihood_rolling", {}, ("the cat sat on it. " * 20,), 0, ("t", 0, 1))]
    theirs = HFLM(pretrained=model, tokenizer=words, max_length=256).loglikelihood_rolling(rolling, disable_tqdm=True)
    assert PackedLM(model, words).loglikelihood_rolling(rolling) == pytest.approx(theirs, abs=1e-2)


def test_generation_equals_lm_evals_own_model() -> None:
    model, words = build(config(), spread=3.0), tokenizer()
    options = {"until": ["e", "\n"], "max_gen_toks": 12, "do_sample": False}
    instances = [
        Instance("generate_until", {}, (text, options), 0, ("t", 0, 1))
        for text in ("the cat", "a much longer start", "so")
    ]
    theirs = HFLM(pretrained=model, tokenizer=words, batch_size=1).generate_until(instances, disable_tqdm=True)
    assert PackedLM(model, words).generate_until(instances) == theirs


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "mistral", "mamba"])
def test_every_kind_of_model_scores_as_lm_evals_own(kind: str) -> None:
    """Absolute positions, a sliding window shorter than the requests, a state instead of keys and values."""
    more = {"sliding_window": 8} if kind == "mistral" else {}
    model, words = build(config(kind, **more)), tokenizer()
    story = "ann has a red hat. bob has a dog. "
    texts = [(f"{story}{question}?", answer) for question in ("who", "what") for answer in (" ann", " bob", " a dog")]
    instances = [Instance("loglikelihood", {}, pair, i, ("t", i, 1)) for i, pair in enumerate(texts)]
    theirs = HFLM(pretrained=model, tokenizer=words, batch_size=1).loglikelihood(instances, disable_tqdm=True)
    lm = PackedLM(model, words)
    ours = lm.loglikelihood(instances)
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], abs=1e-3)
    assert lm.packed == (kind not in ("mistral", "mamba"))


def test_what_does_not_fit_is_cut_at_the_beginning() -> None:
    model, words = build(config(max_position_embeddings=32)), tokenizer()
    long = Instance("loglikelihood", {}, ("x" * 100 + "abc", " d"), 0, ("t", 0, 1))
    short = Instance("loglikelihood", {}, ("x" * 28 + "abc", " d"), 0, ("t", 0, 1))
    ours = PackedLM(model, words).loglikelihood([long, short])
    assert ours[0][0] == pytest.approx(ours[1][0], abs=1e-5)
