"""Packed scores equal plain ones, and both equal what lm-eval's own model class gives."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mosld_bench.errors import OutOfMemoryError
from mosld_bench.methods import registry
from mosld_bench.trial.packed_scoring import CannotPackError, PackingCheck, Work, packs, score_packed, score_plain
from mosld_bench.trial.prefix_tree import Tree, plant
from mosld_bench.trial.scoring import PackedLM, encode_pairs
from tests.support.models import build, config, tokenizer

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
    from_trunks = score_packed(model, asked, 0, 512, width, price=0)
    for (a, greedy_a), *others in zip(plain, packed, from_trunks, strict=True):
        for b, greedy_b in others:
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


def test_few_shot_examples_are_computed_once_and_kept() -> None:
    """A prefix longer than a tree, stories in it, questions on these: all stand once."""
    shots, model = [3 + i % 40 for i in range(100)], build(config())
    stories = [[*shots, 5 + s, *range(3, 18)] for s in range(4)]
    asked = [([*story, 30 + q], [o, 7]) for story in stories for q in range(3) for o in range(4, 8)]
    (free, trunk) = plant(asked, 40)
    assert (free.trees, trunk.tokens) == ([], shots)
    assert [len(tree.tokens) for tree in trunk.trees] == [16 + 3 * (1 + 4)] * 4
    work = Work()
    packed = score_packed(model, asked, 0, 512, 40, work)
    assert (work.computed, work.plain) == (100 + 4 * 31, 48 * (100 + 16 + 2))
    plain = score_plain(model, asked, 0, 512)
    assert [value for value, _ in packed] == pytest.approx([value for value, _ in plain], abs=1e-4)


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 2), min_size=1, max_size=12), st.lists(st.integers(0, 2), min_size=1, max_size=4)
        ),
        max_size=40,
    ),
    st.integers(1, 20),
    st.integers(0, 8),
)
def test_every_request_is_planted_whole(asked: list[tuple[Ids, Ids]], width: int, price: int) -> None:
    """Whatever the requests: read along its path, trunk first, each gives its input, its last nodes those it needs."""
    found = {}
    for trunk in plant(asked, width, price):
        for tree in trunk.trees:
            longest = max(len(asked[request][0]) + len(asked[request][1]) - 1 for request, _ in tree.places)
            assert len(tree.tokens) <= max(width, longest - len(trunk.tokens))
            for request, nodes in tree.places:
                last = nodes[-1]
                path = [node for node in range(last + 1) if tree.end[node] > last]
                assert [tree.depth[node] for node in path] == list(range(len(path)))
                assert path[-len(nodes) :] == nodes
                found[request] = trunk.tokens + [tree.tokens[node] for node in path]
                assert len(nodes) == len(asked[request][1])
    assert found == {i: context + continuation[:-1] for i, (context, continuation) in enumerate(asked)}


def test_tree_layout() -> None:
    (trunk,) = plant([([5, 6], [7, 8]), ([5, 6], [9]), ([5], [4, 4, 4])], 100)
    (tree,) = trunk.trees
    assert trunk.tokens == []
    assert tree.tokens == [5, 4, 4, 6, 7]
    assert tree.depth == [0, 1, 2, 1, 2]
    assert tree.end == [5, 3, 3, 5, 5]
    assert dict(tree.places) == {2: [0, 1, 2], 1: [3], 0: [3, 4]}
    assert isinstance(tree, Tree)


def test_models_that_cannot_be_packed_are_found_out() -> None:
    """Each of them by the numbers of a text of full length, since a short one would not show it."""
    text = list(range(3, 43)) * 2
    assert packs(build(config()), (text, [5]), 0)
    assert not packs(build(config("mamba")), (text, [5]), 0)
    narrow = build(config("mistral", sliding_window=40))
    assert packs(narrow, (text[:30], [5, 6]), 0)
    assert not packs(narrow, (text[:40], [5]), 0)
    assert not packs(build(config("gpt_neo")), (text, [5]), 0)  # a window that its configuration calls otherwise


def test_what_is_known_of_a_model_holds_up_to_a_length() -> None:
    """A short request says nothing of a longer one, and a model is tried out once a length."""
    narrow, proof = build(config("mistral", sliding_window=24)), PackingCheck()
    assert proof.covers(narrow, [([3, 4, 5], [6])], 0)
    assert proof.length == 4
    assert not proof.covers(narrow, [([3, 4], [5]), (list(range(3, 33)), [6])], 0)
    lm = PackedLM(narrow, tokenizer())
    texts = [("ab", "c"), ("a long way to go before anyone stops " * 2, "d")]
    asked = [Instance("loglikelihood", {}, pair, 0, ("t", 0, 1)) for pair in texts]
    one_by_one = [lm.loglikelihood([request])[0] for request in asked]
    assert one_by_one == [PackedLM(narrow, tokenizer(), packed=False).loglikelihood([request])[0] for request in asked]


def test_virtual_tokens_count_for_a_window() -> None:
    params = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 20}
    model = registry.get("peft").attach(build(config("mistral", sliding_window=40)), params).eval()
    assert packs(model, (list(range(3, 13)), [5]), 0)
    assert not packs(model, (list(range(3, 33)), [5]), 0)
    proof, request = PackingCheck(), (list(range(3, 33)), [5])
    few = registry.get("peft").attach(build(config("mistral", sliding_window=40)), params | {"num_virtual_tokens": 4})
    assert proof.covers(few.eval(), [request], 0)
    assert not proof.covers(model, [request], 0)  # the same recipe at a larger budget


def test_continuations_without_a_token_are_certain() -> None:
    for score in (score_plain, lambda *given: score_packed(*given, 64)):
        assert score(build(config()), [([3, 4], []), ([5], [])], 0, 64) == [(0.0, True)] * 2


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "mistral", "mamba"])
def test_every_kind_of_model_scores_as_lm_evals_own(kind: str) -> None:
    """Absolute positions, a sliding window shorter than the requests, a state instead of keys and values."""
    more = {"sliding_window": 8} if kind == "mistral" else {}
    model, words = build(config(kind, **more)), tokenizer()
    story = "ann has a red hat. bob has a dog. "
    texts = [(f"{story}{question}?", answer) for question in ("who", "what") for answer in (" ann", " bob", " a dog")]
    asked = [Instance("loglikelihood", {}, pair, i, ("t", i, 1)) for i, pair in enumerate(texts)]
    theirs = HFLM(pretrained=model, tokenizer=words, batch_size=1).loglikelihood(asked, disable_tqdm=True)
    lm = PackedLM(model, words)
    assert [value for value, _ in lm.loglikelihood(asked)] == pytest.approx([value for value, _ in theirs], abs=1e-3)
    assert lm.packed == (kind not in ("mistral", "mamba"))


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_virtual_tokens_are_scored_with_their_prefix(kind: str, family: str) -> None:
    """Plain or packed, with trunks or without, as a forward of each request by itself."""
    more = {"encoder_hidden_size": 16} if kind == "P_TUNING" else {}
    params = {"peft_type": kind, "num_virtual_tokens": 4, **more}
    model = registry.get("peft").attach(build(config(family)), params).eval()
    asked = requests(20)
    assert packs(model, max(asked, key=lambda one: len(one[0]) + len(one[1])), 0)
    ways = (
        score_plain(model, asked, 0, 200),
        score_packed(model, asked, 0, 200, 64),
        score_packed(model, asked, 0, 200, 8, price=0),
    )
    for (context, answer), *scores in zip(asked, *ways, strict=True):
        logits = model(input_ids=torch.tensor([context + answer])).logits[0][-len(answer) - 1 :].log_softmax(-1)
        alone = sum(logits[i, token].item() for i, token in enumerate(answer))
        assert [value for value, _ in scores] == pytest.approx([alone] * 3, abs=1e-4)


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
    from mosld_bench.trial.logits import logits_at

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


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


def raising(error: BaseException, calls: int = 1) -> torch.nn.Module:
    """A model whose first ``calls`` forwards raise ``error``."""
    model, left = build(config()), [calls]

    def fail(*args: object, **kwargs: object) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise error

    model.register_forward_pre_hook(fail, with_kwargs=True)
    return model


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_full_device_says_nothing_about_the_model(error: BaseException) -> None:
    """It is an error of its own, and what is known of the model stays as it was."""
    model, proof, asked = raising(error), PackingCheck(), requests(6)
    with pytest.raises(OutOfMemoryError, match=r"does not suffice to score .* resources\.score_tokens"):
        proof.covers(model, asked, 0)
    assert (proof.length, proof.holds) == (0, True)
    assert proof.covers(model, asked, 0)  # there is room again
    with pytest.raises(OutOfMemoryError):
        score_packed(raising(error), asked, 0, 512, 64)


@pytest.mark.parametrize("error", [TypeError("unexpected keyword 'position_ids'"), RuntimeError("sizes must match")])
def test_a_model_that_refuses_its_inputs_is_scored_plainly(error: BaseException) -> None:
    asked = requests(6)
    assert not packs(raising(error), asked[0], 0)
    with pytest.raises(CannotPackError, match=type(error).__name__):
        score_packed(raising(error), asked, 0, 512, 64)


def test_a_fault_of_ours_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong outside the model's forward is not taken for a model that cannot be packed."""
    monkeypatch.setattr("mosld_bench.trial.packed_scoring.plant", lambda *given: [][1])
    with pytest.raises(IndexError):
        packs(build(config()), requests(6)[0], 0)
