"""What controls of routing compute: gates that are uniform, routers that do not train or read noise, a frozen A."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoConfig, LlamaConfig

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.errors import BenchError
from mosld_bench.methods import fit_budget, registry
from mosld_bench.methods.live import stored
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.trial.packed_scoring import score_packed, score_plain
from mosld_bench.trial.packing_check import packs
from mosld_bench.tuners.mixture import MixtureConfig, MixtureLayer
from tests.conftest import REPOSITORY
from tests.support.models import build, config
from tests.support.requests import story_requests
from tests.tuners.test_mixture import by_the_equations, layer, probabilities

RECIPES = load_recipes(REPOSITORY / "methods")
CONTROLS = ["mosld-uniform", "mosld-frozen-router", "mosld-frozen-a", "mosld-noise-router", "mosld-one-expert"]


def noise_by_hand(module: MixtureLayer, position: int) -> Tensor:
    """sqrt(2) cos(2 pi (k p + c) / 2^24), feature by feature, in whole numbers as far as they go."""
    steps, starts = module.mixture_noise["default"].tolist()
    turns = [(int(k) * position + int(c)) % 2**24 / 2**24 for k, c in zip(steps, starts, strict=True)]
    return torch.tensor([math.sqrt(2) * math.cos(2 * math.pi * turn) for turn in turns], dtype=torch.float64)


@pytest.mark.parametrize("share", ["none", "down", "up"])
@pytest.mark.parametrize("point", [{"router": "uniform"}, {"router_input": "noise"},
                                   {"router_input": "noise", "top_k": 2}])  # fmt: skip
def test_forward_and_gradients_equal_a_loop_with_the_gates_given(share: str, point: dict[str, Any]) -> None:
    module = layer(share=share, **point)
    positions = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 1, 2, 7000]])
    module.current.positions = positions
    x = torch.randn(2, 5, 10, dtype=torch.float64, requires_grad=True)
    routed: list[dict[int, Tensor]] = []
    for position in positions.flatten().tolist():
        if module.settings["default"].router == "uniform":
            routed.append({n: torch.tensor(0.25, dtype=torch.float64) for n in range(4)})
            continue
        p = probabilities(module.mixture_router["default"], noise_by_hand(module, position))
        picked = sorted(range(4), key=lambda n: -p[n].item())[: point.get("top_k", 4)]
        routed.append({n: p[n] / sum(p[m] for m in picked) for n in picked})
    trained = [module.mixture_down["default"], module.mixture_up["default"], x]
    if point.get("router") != "uniform":
        trained.append(module.mixture_router["default"])
    ours, theirs = module(x), plain_updates(module, x, routed)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6 if "router_input" in point else 1e-12)
    mine = torch.autograd.grad(ours.square().sum(), trained)
    plain = torch.autograd.grad(theirs.square().sum(), trained)
    for a, b in zip(mine, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def plain_updates(module: MixtureLayer, x: Tensor, routed: list[dict[int, Tensor]]) -> Tensor:
    """W0 x + (alpha / r) sum_k g_k B_k A_k x with the gates ``routed``, token by token."""
    settings, rank = module.settings["default"], module.rank["default"]
    down, up = module.mixture_down["default"], module.mixture_up["default"]
    rows = []
    for token, gates in zip(x.reshape(-1, x.shape[-1]), routed, strict=True):
        y = module.base_layer.weight @ token + module.base_layer.bias  # type: ignore[operator]
        for n, gate in gates.items():
            own = slice(n * rank, (n + 1) * rank)
            a, b = down if settings.share == "down" else down[own], up if settings.share == "up" else up[:, own]
            y = y + settings.lora_alpha / rank * gate * (b @ (a @ token))
        rows.append(y)
    return torch.stack(rows).view(*x.shape[:-1], -1)


@pytest.mark.parametrize("frozen", [["router"], ["down"], ["down", "router"]])
def test_what_is_frozen_has_no_gradient_and_the_rest_has_the_one_it_had(frozen: list[Any]) -> None:
    module, free = layer(share="down", top_k=2, frozen=frozen), layer(share="down", top_k=2)
    x = torch.randn(3, 10, dtype=torch.float64, requires_grad=True)
    for made in (module, free):
        made(x).square().sum().backward()
    torch.testing.assert_close(module(x), by_the_equations(module, x), rtol=0, atol=1e-10)
    for name in ("down", "router", "up"):
        mine, theirs = (getattr(made, f"mixture_{name}")["default"] for made in (module, free))
        assert mine.requires_grad == (name not in frozen)
        if name in frozen:
            assert mine.grad is None
        else:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-12, atol=1e-12)


def test_noise_is_white_over_positions_and_other_in_every_module() -> None:
    torch.manual_seed(0)
    module, other = (layer(d_in=4000, router_input="noise") for _ in range(2))
    torch.manual_seed(1)
    other.mixture_noise["default"].data = torch.rand(2, 4000).mul(2**24).floor()
    places = [0, 1, 2, 3, 50, 999, 4095]
    noise = torch.stack([noise_by_hand(module, place) for place in places])
    likeness = noise @ noise.T / 4000
    torch.testing.assert_close(likeness, torch.eye(7, dtype=torch.float64), rtol=0, atol=0.08)  # 5 standard errors
    assert abs(float(noise_by_hand(module, 5) @ noise_by_hand(other, 5)) / 4000) < 0.08


def adapted(name: str, **more: Any) -> Any:
    """A model with the recipe ``name``, whose update has an effect."""
    recipe = RECIPES[name]
    torch.manual_seed(0)
    model: Any = registry.get(recipe.method).attach(build(config()), recipe.params | {"r": 4} | more)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "mixture_up" in parameter_name:
                parameter.normal_(0, 0.3)
    return model.eval()


@pytest.mark.parametrize("name", CONTROLS)
def test_packed_scores_are_plain_scores(name: str) -> None:
    """Also of a text alone, and of one padded: a score hangs on nothing else that is in the batch."""
    model, requests = adapted(name), story_requests(24)
    plain = score_plain(model, requests, pad=0, tokens=100_000)
    ways: list[dict[str, Any]] = [
        {"tokens": 1, "width": 400},
        {"tokens": 2000, "width": 60},
        {"tokens": 500, "width": 1, "trunk_overhead": 0},
    ]
    for options in ways:
        packed = score_packed(model, requests, pad=0, **options)
        torch.testing.assert_close(torch.tensor(packed), torch.tensor(plain), rtol=0, atol=2e-4)
    alone = [score_plain(model, [request], pad=0, tokens=1)[0] for request in requests]
    torch.testing.assert_close(torch.tensor(alone), torch.tensor(plain), rtol=0, atol=2e-5)
    assert packs(model, max(requests, key=lambda request: len(request.context)), 0)


def gates_of(model: Any, module: MixtureLayer, ids: Tensor) -> Tensor:
    """The gates of ``module`` in a forward of ``model`` on ``ids``."""
    seen: list[Tensor] = []
    route = module._route

    def watched(adapter: str, logits: Tensor) -> Tensor:
        seen.append(route(adapter, logits))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_route", watched)
        model(input_ids=ids)
    return seen[0]


def test_a_router_of_noise_does_not_read_the_text() -> None:
    """Two texts of one length have the same gates at every place; those of a router that reads x differ."""
    for name, alike in (("mosld-noise-router", True), ("mosld", False)):
        model = adapted(name)
        last = [module for module in model.modules() if isinstance(module, MixtureLayer)][-1]
        seen = [gates_of(model, last, torch.randint(3, 40, (1, 9))) for _ in range(2)]
        assert torch.equal(*seen) is alike


def test_noise_needs_the_places_of_tokens() -> None:
    module = layer(router_input="noise")
    with pytest.raises(BenchError, match=r"needs the place of each token, but .* for no positions"):
        module(torch.randn(2, 5, 10, dtype=torch.float64))
    module.current.positions = torch.arange(4)[None]
    with pytest.raises(BenchError, match=r"was given \(2, 5, 10\) for \(1, 4\) positions"):
        module(torch.randn(2, 5, 10, dtype=torch.float64))


def test_places_are_those_of_the_text_however_it_is_given() -> None:
    """From the left or right of a batch, with a cache, by position_ids, and by a hook that generate() passes too."""
    model = adapted("mosld-noise-router")
    current: Any = next(module.current for module in model.modules() if isinstance(module, MixtureLayer))
    ids = torch.randint(3, 40, (2, 5))
    model(input_ids=ids)
    assert current.positions.tolist() == [[0, 1, 2, 3, 4]]
    model(input_ids=ids, attention_mask=torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]))
    assert current.positions.tolist() == [[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]
    cache = model(input_ids=ids, use_cache=True).past_key_values
    model.get_base_model()(input_ids=ids[:, :2], past_key_values=cache)
    assert current.positions.tolist() == [[5, 6]]
    model(input_ids=ids, position_ids=torch.tensor([[0, 1, 1, 2, 3]]))
    assert current.positions.tolist() == [[0, 1, 1, 2, 3]]
    model(inputs_embeds=torch.randn(1, 3, 32))
    assert current.positions.tolist() == [[0, 1, 2]]


def frozen_in(model: Any) -> set[str]:
    """Names of the adapter's parameters that do not train."""
    return {name for name, p in model.named_parameters() if "mixture_" in name and not p.requires_grad}


@pytest.mark.filterwarnings("ignore:Could not find a config file")
@pytest.mark.parametrize("name", CONTROLS)
def test_what_is_saved_gives_the_model_again(name: str, tmp_path: Path) -> None:
    """Frozen parameters and noise are saved with the others, and stay frozen in a model that is trained on."""
    model, ids = adapted(name), torch.randint(3, 40, (2, 9))
    model.save_pretrained(tmp_path)
    torch.manual_seed(7)
    loaded: Any = PeftModel.from_pretrained(build(config()), tmp_path, is_trainable=True).eval()
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=0, atol=0)
    frozen = frozen_in(model)
    assert frozen_in(loaded) == frozen
    assert bool(frozen) is (name in {"mosld-frozen-router", "mosld-frozen-a", "mosld-noise-router"})
    with loaded.disable_adapter():
        pass
    loaded.set_adapter("default")
    loaded.set_requires_grad("default")
    assert frozen_in(loaded) == frozen


@pytest.mark.filterwarnings("ignore:Could not find a config file")
@pytest.mark.parametrize("name", ["mosld-frozen-router", "mosld-frozen-a"])
def test_what_is_frozen_stays_so_on_a_base_in_bfloat16(name: str, tmp_path: Path) -> None:
    """For whoever uses PEFT alone as well, which takes adapters of 16 bits to float32 and lets them train."""
    base = build(config()).bfloat16()
    frozen = frozen_in(adapted(name))
    model = get_peft_model(base, MixtureConfig(task_type="CAUSAL_LM", **RECIPES[name].params))
    assert frozen_in(model) == frozen
    assert {p.dtype for key, p in model.named_parameters() if "mixture_" in key} == {torch.float32}
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build(config()).bfloat16(), tmp_path, is_trainable=True)
    assert frozen_in(loaded) == frozen


def test_noise_keeps_its_whole_numbers_on_a_base_in_bfloat16() -> None:
    settings: dict[str, Any] = {"router_input": "noise", "target_modules": ["q_proj"]}
    model = get_peft_model(build(config()).bfloat16(), MixtureConfig(task_type="CAUSAL_LM", **settings))
    for module in model.modules():
        if isinstance(module, MixtureLayer):
            noise = module.mixture_noise["default"]
            assert noise.dtype == torch.float32
            assert torch.equal(noise, noise.round())
            assert len(noise.unique()) == noise.numel()  # bfloat16 has 256 numbers to a power of two


@pytest.mark.parametrize(
    ("name", "trained", "active"),
    [  # hidden 32, keys 16, four layers, 20 experts in all on q and on v, rank 4
        ("mosld-uniform", 4 * 4 * 64 + 20 * 4 * 48, 4 * 4 * 64 + 20 * 4 * 48),
        ("mosld-frozen-router", 4 * 4 * 64 + 20 * 4 * 48, 4 * 4 * 64 + 8 * 4 * 48),
        ("mosld-frozen-a", 20 * (4 * 48 + 64), 8 * 4 * 48 + 20 * 64),
        ("mosld-noise-router", 4 * 4 * 64 + 20 * (4 * 48 + 64), 4 * 4 * 64 + 8 * 4 * 48 + 20 * 64),
        ("mosld-one-expert", 4 * 4 * (64 + 48), 4 * 4 * (64 + 48)),
    ],
)
def test_counts_by_hand(name: str, trained: int, active: int) -> None:
    model = adapted(name)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained
    assert registry.get("mixture").active(model) == active
    frozen = {"mosld-frozen-router": 20 * 64, "mosld-frozen-a": 4 * 4 * 64, "mosld-noise-router": 4 * 2 * 2 * 32}
    assert stored(model) == trained + frozen.get(name, 0)  # what is saved: noise is two numbers a feature


#: Trainable parameters of a module at a rank, by its d_in, d_out and number of experts.
FORMULAS: dict[str, Any] = {
    "mosld-uniform": lambda r, d_in, d_out, n: r * (d_in + n * d_out),
    "mosld-frozen-router": lambda r, d_in, d_out, n: r * (d_in + n * d_out),
    "mosld-frozen-a": lambda r, d_in, d_out, n: r * n * d_out + n * d_in,
    "mosld-noise-router": lambda r, d_in, d_out, n: r * (d_in + n * d_out) + n * d_in,
    "mosld-one-expert": lambda r, d_in, d_out, n: r * (d_in + d_out),
    "lora-all-linear": lambda r, d_in, d_out, n: r * (d_in + d_out),
    "mola-all-linear": lambda r, d_in, d_out, n: r * n * (d_in + d_out) + n * d_in,
    "mosld-all-linear": lambda r, d_in, d_out, n: r * (d_in + n * d_out) + n * d_in,
}


#: The embedded model, and one like SmolLM2: layers, and d_in and d_out of the linear layers that are not all alike.
SHAPES: dict[str, tuple[Any, int, int, int]] = {  # hidden, keys, feed-forward
    "embedded": (AutoConfig.from_pretrained(MODEL_DIR), 128, 64, 384),
    "llama": (
        LlamaConfig(hidden_size=576, num_hidden_layers=30, intermediate_size=1536, num_attention_heads=9,
                    num_key_value_heads=3, vocab_size=49152, tie_word_embeddings=True), 576, 192, 1536,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(
    ("model", "budget"), [("embedded", "75k"), ("embedded", "110k"), ("embedded", "200k"), ("llama", "3m")]
)
def test_budgets_are_met_by_the_formula_of_the_control(name: str, model: str, budget: str) -> None:
    """Each module has the size of its own rank."""
    shape, hidden, keys, inner = SHAPES[model]
    fit = fit_budget(RECIPES[name], shape, budget)
    assert fit.residual is not None
    assert abs(fit.residual) <= 0.01
    total, layers = 0, shape.num_hidden_layers
    for number in range(layers):
        for module in fit.params["target_modules"]:
            block = "mlp" if module in {"gate_proj", "up_proj", "down_proj"} else "self_attn"
            d_in = inner if module == "down_proj" else hidden
            d_out = {"k_proj": keys, "v_proj": keys, "gate_proj": inner, "up_proj": inner}.get(module, hidden)
            own = fit.params.get("rank_pattern") or {}
            rank = own.get(rf"model\.layers\.{number}\.{block}\.{module}", fit.params["r"])
            total += FORMULAS[name](rank, d_in, d_out, (2, 4, 6, 8)[number * 4 // layers])
    assert total == fit.trainable


def test_all_linear_names_every_linear_layer_but_the_head() -> None:
    """As PEFT has it for its own methods."""
    settings: dict[str, Any] = {"experts": 2, "r": 2}
    made = [
        registry.get("mixture").attach(build(config()), settings | {"target_modules": targets})
        for targets in ("all-linear", RECIPES["mosld-all-linear"].params["target_modules"])
    ]
    names = [[n for n, module in model.named_modules() if isinstance(module, MixtureLayer)] for model in made]
    assert names[0] == names[1]
    assert len(names[0]) == 4 * 7
    assert copy.deepcopy(made[0])(torch.ones(1, 3, dtype=torch.long)).logits.shape[-1] > 0
