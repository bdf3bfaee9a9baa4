"""Answers are what plain forwards of the very model give, whatever its method, its batch mates and its own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import GenerationConfig

from mosld_bench.errors import BenchError, OutOfMemoryError, UnknownNameError
from mosld_bench.methods import registry
from mosld_bench.spec.recipe import Recipe, load_recipes
from mosld_bench.trial import generation
from mosld_bench.trial.generation import GenerationCheck, by_forwards, repeats_forwards, with_cache
from mosld_bench.trial.packed_lm import PackedLM
from tests.conftest import REPOSITORY
from tests.support.faults import OUT_OF_MEMORY, raising
from tests.support.models import build, config, tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:Position ids are not supported")

NEW = 6  # tokens of an answer
TEXTS = ["the cat", "a much longer start, so that others are padded", "so"]
VIRTUAL = {
    "prefix-tuning": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 5},
    "prompt-tuning": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 5},
    "p-tuning": {"peft_type": "P_TUNING", "num_virtual_tokens": 5, "encoder_hidden_size": 16},
}
RECIPES = load_recipes(REPOSITORY / "methods") | {
    name: Recipe(name=name, title=name, method="peft", params=params) for name, params in VIRTUAL.items()
}


def ask(texts: Sequence[str], options: Mapping[str, Any]) -> list[Instance]:
    return [Instance("generate_until", {}, (text, dict(options)), i, ("toy", i, 1)) for i, text in enumerate(texts)]


def answers(lm: PackedLM, texts: Sequence[str] = TEXTS, **options: Any) -> list[str]:
    return lm.generate_until(ask(texts, {"until": ["no such text"], "max_gen_toks": NEW} | options))


def plainly(model: Any, words: Any, texts: Sequence[str] = TEXTS, new_tokens: int = NEW) -> list[str]:
    """The greedy answers by forwards of the growing text, each alone."""
    written = [by_forwards(model, words(text)["input_ids"], new_tokens=new_tokens) for text in texts]
    return [words.decode(row[: row.index(1)] if 1 in row else row, skip_special_tokens=True) for row in written]


def adapted(params: Mapping[str, Any], kind: str = "llama", method: str = "peft", **more: Any) -> Any:
    """A model whose method's parameters are far from their start, so that leaving them out shows."""
    torch.manual_seed(3)
    model = registry.get(method).attach(build(config(kind, **more), spread=2.0), params)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 2.0 if "prompt" in name else 0.2)
    return model.eval()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_every_recipe_answers_by_the_forward_it_trains_and_scores_with(recipe: Recipe) -> None:
    """Alone, and in a batch of prompts of other lengths."""
    model, words = adapted(recipe.params, method=recipe.method), tokenizer()
    expected, lm = plainly(model, words), PackedLM(model, words)
    assert len(set(expected)) == len(TEXTS)
    assert [answers(lm, [text])[0] for text in TEXTS] == expected
    assert answers(lm) == expected
    assert lm.writer.cached is True


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *((kind, "base") for kind in ("gpt2", "gpt_neo", "mistral", "mamba")),
        *(("gpt2", name) for name in VIRTUAL),
        ("mistral", "prefix-tuning"),
    ],
)
def test_positions_windows_and_states_of_other_kinds(kind: str, method: str) -> None:
    """Learned positions; windows shorter than a text; a state in place of keys and values."""
    more = {"sliding_window": 8} if kind == "mistral" else {}
    model = adapted(VIRTUAL.get(method, {}), kind, "peft" if method in VIRTUAL else "base", **more)
    lm = PackedLM(model, tokenizer())
    assert answers(lm) == plainly(model, tokenizer())


def test_virtual_tokens_are_seen_by_every_answer() -> None:
    """The frozen base answers otherwise, so that leaving them out would show above."""
    for params in VIRTUAL.values():
        model = adapted(params)
        assert plainly(model, tokenizer()) != plainly(model.get_base_model(), tokenizer())


def test_a_model_that_cannot_repeat_its_forwards_with_a_cache_is_read_anew_for_every_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if a new version of a library left virtual tokens out. What asks for more than greedy is refused."""
    model, words = adapted(VIRTUAL["prefix-tuning"]), tokenizer()
    monkeypatch.setattr(generation, "rooted", lambda model: (model.get_base_model(), None))
    assert not repeats_forwards(model, words(TEXTS[0])["input_ids"], 20, 0)
    lm = PackedLM(model, words)
    assert answers(lm) == plainly(model, words)
    assert lm.writer.cached is False
    assert answers(lm, until=["e"]) == [text.split("e")[0] for text in plainly(model, words)]
    with pytest.raises(BenchError, match=r"task 'toy' asks for num_beams in its generation_kwargs, but with kept keys"):
        answers(lm, num_beams=2)


@pytest.mark.parametrize("error", [TypeError("unexpected keyword 'cache'"), KeyError("layer"), RuntimeError("sizes")])
def test_a_model_that_refuses_a_cache_is_read_anew(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise error

    model, words = adapted({}, method="base"), tokenizer()
    monkeypatch.setattr(model, "generate", refuse)
    lm = PackedLM(model, words)
    assert answers(lm) == plainly(model, words)
    assert lm.writer.cached is False


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_full_device_says_nothing_about_the_model(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise error

    model, check = adapted({}, method="base"), GenerationCheck()
    with monkeypatch.context() as patch:
        patch.setattr(model, "generate", full)
        with pytest.raises(OutOfMemoryError, match="does not suffice to write answers"):
            check.covers(model, [[3, 4]], 4, 0)
    assert (check.length, check.holds) == (0, True)
    assert check.covers(model, [[3, 4]], 4, 0)


def test_a_model_is_tried_once_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def holds(model: Any, prompt: Sequence[int], length: int, pad: int) -> bool:
        tried.append(length)
        return True

    monkeypatch.setattr(generation, "repeats_forwards", holds)
    model, check = adapted(VIRTUAL["prefix-tuning"]), GenerationCheck()
    assert check.covers(model, [[3] * 10, [3]], 6, 0)
    assert check.covers(model, [[3] * 12], 4, 0)
    assert check.covers(model, [[3] * 12], 5, 0)
    assert (tried, check.length) == ([16, 17], 17 + 5)


def test_the_model_s_own_settings_are_no_part_of_greedy() -> None:
    model, words = adapted({}, method="base"), tokenizer()
    expected, own = plainly(model, words), GenerationConfig(
        do_sample=True, temperature=9.0, repetition_penalty=5.0, no_repeat_ngram_size=1, suppress_tokens=[3, 4, 5, 6],
        min_new_tokens=NEW, num_beams=3, max_length=7, forced_eos_token_id=1, bad_words_ids=[[8], [9]],
    )  # fmt: skip
    model.generation_config = own
    assert answers(PackedLM(model, words)) == expected
    assert model.generation_config is own
    assert answers(PackedLM(model, words), repetition_penalty=5.0) != expected  # unless the task asks


def test_any_end_token_of_the_model_ends_an_answer() -> None:
    model, words = adapted({}, method="base"), tokenizer()
    text = plainly(model, words)[0]
    for place, tokens in ((3, [1, words.convert_tokens_to_ids(text[3])]), (5, words.convert_tokens_to_ids(text[5]))):
        ended = text[: text.index(text[place])]
        model.generation_config = GenerationConfig(eos_token_id=tokens)
        assert answers(PackedLM(model, words))[0] == ended
        model.generation_config = GenerationConfig()
        assert answers(PackedLM(model, words), eos_token_id=tokens)[0] == ended
        model.config.eos_token_id = tokens
        assert answers(PackedLM(model, words))[0] == ended
        model.config.eos_token_id = 1
    words.eos_token = text[2]
    assert answers(PackedLM(model, words))[0] == text[: text.index(text[2])]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "options",
    [
        {"until": ["e", "\n"], "do_sample": False},
        {"until": "a"},
        {"until": ["ab", "<end>"]},
        {"do_sample": False, "temperature": 0.0},
        {"until": [], "repetition_penalty": 1.5},
        {"until": ["q"], "num_beams": 2},
        {"until": ["q"], "max_new_tokens": 3, "max_gen_toks": None},
    ],
)
def test_as_lm_evals_own_model(kind: str, options: dict[str, Any]) -> None:
    model, words = build(config(kind), spread=3.0), tokenizer()
    model.generation_config = GenerationConfig(eos_token_id=1)
    asked = {"max_gen_toks": 8} | options
    theirs = HFLM(pretrained=model, tokenizer=words, batch_size=1).generate_until(ask(TEXTS, asked), disable_tqdm=True)
    ours = PackedLM(model, words)
    assert ours.generate_until(ask(TEXTS, asked)) == theirs
    if isinstance(asked.get("until"), list):  # at an empty text lm-eval stops after one token, which says nothing
        assert ours.generate_until(ask(TEXTS, asked | {"until": [*asked["until"], ""]})) == theirs


def test_a_special_token_that_stops_is_no_part_of_the_answer_nor_what_follows() -> None:
    """In a batch a row goes on while others write, and the text that stopped it is left out when it is decoded."""
    model, words = adapted({}, method="base"), tokenizer()
    text = plainly(model, words)[0]
    words.add_special_tokens({"additional_special_tokens": [text[3]]})
    ended = text[: text.index(text[3])].strip()
    assert answers(PackedLM(model, words), until=[text[3]])[0].strip() == ended


@pytest.mark.parametrize("missing", [["pad_token"], ["pad_token", "eos_token", "bos_token"]])
def test_a_tokenizer_without_special_tokens(missing: list[str]) -> None:
    model, words = adapted({}, method="base"), tokenizer()
    expected = plainly(model, words)
    for name in missing:
        setattr(words, name, None)
    assert answers(PackedLM(model, words)) == expected


def test_drawn_answers_are_the_same_every_time_and_move_no_generator() -> None:
    model, words = adapted({}, method="base"), tokenizer()
    lm, greedy = PackedLM(model, words), plainly(model, words)
    drawing: list[dict[str, Any]] = [{"do_sample": True}, {"temperature": 0.9}, {"do_sample": True, "top_k": 5}]
    for drawn in drawing:
        torch.manual_seed(5)
        before = torch.get_rng_state()
        first = answers(lm, **drawn)
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(3)
        assert answers(lm, **drawn) == first != greedy
    plain: list[dict[str, Any]] = [{"do_sample": True, "temperature": 0.0}, {"do_sample": False, "temperature": 0.7}]
    for options in plain:
        assert answers(lm, **options) == greedy


@pytest.mark.parametrize("key", ["until_text", "max_length", "pad_token_id"])
def test_options_that_nobody_reads_are_refused(key: str) -> None:
    unread: dict[str, Any] = {key: 3}
    with pytest.raises(UnknownNameError, match=rf"no option of generation_kwargs of the task 'toy' named '{key}'"):
        answers(PackedLM(build(config()), tokenizer()), **unread)


def test_long_and_empty_prompts() -> None:
    """A prompt loses its beginning so that the answer fits, and an empty one begins as a text does."""
    model, words = adapted(VIRTUAL["prefix-tuning"], max_position_embeddings=32), tokenizer()
    lm = PackedLM(model, words)
    assert lm.max_length == 32 - 5
    long = "x" * 100 + "the end of it"
    assert answers(lm, [long]) == plainly(model, words, [long[-(27 - NEW) :]])
    assert answers(lm, [long], max_gen_toks=500) == plainly(model, words, [long[-14:]], 13)
    assert answers(lm, [""]) == plainly(model, words, ["<end>"])


def test_a_batch_is_padded_in_front() -> None:
    model = adapted(VIRTUAL["p-tuning"], "gpt2")
    rows = with_cache(model, [[3, 4, 5, 6], [7]], pad=0, new_tokens=3).tolist()
    assert rows == [by_forwards(model, [3, 4, 5, 6], new_tokens=3), by_forwards(model, [7], new_tokens=3)]


def test_a_device_that_fills_up_in_a_plain_answer() -> None:
    lm = PackedLM(raising(OUT_OF_MEMORY[0]), tokenizer(), generation=GenerationCheck(length=100, holds=False))
    with pytest.raises(OutOfMemoryError, match="does not suffice to write answers"):
        answers(lm)
