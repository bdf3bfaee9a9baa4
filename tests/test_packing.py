"""Packed scores equal plain ones, and both equal what lm-eval's own model class gives."""

from __future__ import annotations

import random

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mosld_bench import registry
from mosld_bench.evaluate import PackedLM, encode_pairs
from mosld_bench.packing import Tree, Work, grow, packs, score_packed, score_plain
from tests.models import build, config, tokenizer

Ids = list[int]


def requests(count: int = 40, seed: int = 0) -> list[tuple[Ids, Ids]]:
    """Stories with questions with options, some contexts equal and some requests twice."""
    rng = random.Random(seed)

    def draw(low: int, high: int) -> Ids:
        return [rng.randint(3, 40) for _ in range(rng.randint(low, high))]

    made = []
    while len(made) < count:
        story = draw(5, 20)
        for _ in range(rng.randint(1, 3)):
            question = story + draw(2, 8)
            made += [(question, draw(1, 4)) for _ in range(4)]
    return made[:count] + made[:2]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "gpt2"])
@pytest.mark.parametrize("width", [16, 64, 4096])
def test_packed_equals_plain(kind: str, width: int) -> None:
    model, asked = build(config(kind)), requests()
    plain = score_plain(model, asked, 0, 512)
    packed = score_packed(model, asked, 0, 512, width)
    for (a, greedy_a), (b, greedy_b) in zip(plain, packed, strict=True):
        assert a == pytest.approx(b, abs=1e-4)
        assert greedy_a == greedy_b


def test_plain_equals_the_definition_in_float64() -> None:
    model, asked = build(config()).double(), requests(12)
    for (context, answer), (value, greedy) in zip(asked, score_plain(model, asked, 0, 200), strict=True):
        logits = model(torch.tensor([context + answer])).logits[0].log_softmax(-1)
        terms = [logits[len(context) - 1 + i, token] for i, token in enumerate(answer)]
        assert value == pytest.approx(sum(terms).item(), abs=1e-5)
        assert greedy == all(logits[len(context) - 1 + i].argmax().item() == token for i, token in enumerate(answer))


def test_equal_to_lm_evals_own_model() -> None:
    model, words = build(config()), tokenizer()
    pairs = [
        ("the cat", " sat"),
        ("the cat", " ran off"),
        ("a dog ", "barks"),
        ("", "alone"),
        ("the cat sat. who?", " it"),
    ]
    asked = [Instance("loglikelihood", {}, pair, 0, ("t", 0, 1)) for pair in pairs]
    theirs = HFLM(pretrained=model, tokenizer=words, batch_size=2).loglikelihood(asked, disable_tqdm=True)
    for packed in (True, False):
        ours = PackedLM(model, words, packed=packed).loglikelihood(asked)
        for (a, greedy_a), (b, greedy_b) in zip(theirs, ours, strict=True):
            assert a == pytest.approx(b, abs=1e-4)
            assert greedy_a == greedy_b
    rolling = [Instance("loglikelihood_rolling", {}, ("the cat sat on it. " * 20,), 0, ("t", 0, 1))]
    theirs = HFLM(pretrained=model, tokenizer=words, max_length=256).loglikelihood_rolling(rolling, disable_tqdm=True)
    assert PackedLM(model, words).loglikelihood_rolling(rolling) == pytest.approx(theirs, abs=1e-2)


def test_generation_equals_lm_evals_own_model() -> None:
    model, words = build(config(), spread=3.0), tokenizer()
    options = {"until": ["e", "\n"], "max_gen_toks": 12, "do_sample": False}
    asked = [
        Instance("generate_until", {}, (text, options), 0, ("t", 0, 1))
        for text in ("the cat", "a much longer start", "so")
    ]
    theirs = HFLM(pretrained=model, tokenizer=words, batch_size=1).generate_until(asked, disable_tqdm=True)
    assert PackedLM(model, words).generate_until(asked) == theirs


def test_every_shared_prefix_is_computed_once() -> None:
    story = list(range(3, 23))
    asked = [([*story, 30 + q], [o]) for q in range(3) for o in range(4, 8)]
    work = Work()
    score_packed(build(config()), asked, 0, 512, 512, work)
    assert work.computed == 20 + 3  # the story once, a token for each question; options of one token cost nothing
    assert work.plain == 12 * 21
    assert work.requests == 12


def test_tree_layout() -> None:
    (tree,) = grow([([5, 6], [7, 8]), ([5, 6], [9]), ([5], [4, 4, 4])], 100)
    assert tree.tokens == [5, 4, 4, 6, 7]
    assert tree.depth == [0, 1, 2, 1, 2]
    assert tree.end == [5, 3, 3, 5, 5]
    assert dict(tree.places) == {2: [0, 1, 2], 1: [3], 0: [3, 4]}
    assert isinstance(tree, Tree)


def test_models_whose_mask_cannot_be_replaced_are_found_out() -> None:
    model, asked = build(config()), requests(16)
    assert packs(model, asked, 0, 512, 64)
    prefixed = registry.get("peft").attach(build(config()), {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4})
    assert not packs(prefixed.eval(), asked, 0, 512, 64)
    narrow = build(config("mistral", sliding_window=8))
    assert not packs(narrow, asked, 0, 512, 64)


def test_virtual_tokens_are_scored_with_their_prefix() -> None:
    """Prefix-tuning through the plain way equals a forward of each request by itself."""
    model = registry.get("peft").attach(build(config()), {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}).eval()
    asked = requests(10)
    for (context, answer), (value, _) in zip(asked, score_plain(model, asked, 0, 200), strict=True):
        logits = model(input_ids=torch.tensor([context + answer])).logits[0].log_softmax(-1)
        alone = sum(logits[len(context) - 1 + i, token].item() for i, token in enumerate(answer))
        assert value == pytest.approx(alone, abs=1e-4)


def test_encoding_moves_spaces_and_handles_no_context() -> None:
    words = tokenizer()
    one, two, three = encode_pairs(words, [("ab ", "c"), ("ab", " c"), ("", "c")])
    assert one == two
    assert three == ([1], words("c")["input_ids"])
    assert encode_pairs(words, []) == []


def test_what_does_not_fit_is_cut_at_the_beginning() -> None:
    model, words = build(config(max_position_embeddings=32)), tokenizer()
    long = Instance("loglikelihood", {}, ("x" * 100 + "abc", " d"), 0, ("t", 0, 1))
    short = Instance("loglikelihood", {}, ("x" * 28 + "abc", " d"), 0, ("t", 0, 1))
    ours = PackedLM(model, words).loglikelihood([long, short])
    assert ours[0][0] == pytest.approx(ours[1][0], abs=1e-5)


def test_scores_of_a_bfloat16_model_have_a_float32_head() -> None:
    """Between 8 and 16 bfloat16 logits are a sixteenth apart; those that are compared must not be."""
    from mosld_bench.logits import logits_at

    model = build(config()).to(torch.bfloat16)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    ids = torch.arange(3, 13).unsqueeze(0)
    rows, columns = torch.zeros(4, dtype=torch.long), torch.tensor([2, 4, 6, 9])
    plain = logits_at(model, rows, columns, input_ids=ids)
    exact = logits_at(model, rows, columns, exact=True, input_ids=ids)
    assert (plain.dtype, exact.dtype) == (torch.bfloat16, torch.float32)
    assert torch.allclose(exact, plain.float(), rtol=1e-2, atol=1e-1)
    assert exact.unique().numel() > plain.unique().numel()
    hidden = model.model(input_ids=ids).last_hidden_state[0, columns].float()
    assert torch.allclose(exact, hidden @ model.lm_head.weight.float().T, atol=1e-4)
