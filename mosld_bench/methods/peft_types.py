"""What each method of PEFT is to a benchmark: how it gets its size, what it needs, and why it cannot be had, if so.

One entry a PEFT type in :data:`KINDS`. `methods/README.md` prints the table, and a test tries every type that the
installed PEFT has and compares. A type without an entry, from a later PEFT, is sized by its ``r``, if it has that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from mosld_bench.compat.peft import config_classes
from mosld_bench.methods.base import Sizing
from mosld_bench.spec.trial import Load

_SHAPE = "its size follows from the model's shape"
_DIVIDES = "its {0} must divide the widths of the layers, which leaves a few sizes far apart; set it in the params"

#: Fields that are said by name and have no one value: what a recipe must write.
_NEEDS_TOKENS = {"num_virtual_tokens": "how many virtual tokens stand before every text"}


@dataclass(frozen=True)
class Kind:
    """What is known of a PEFT type."""

    #: How its size is set. A ``unit`` that a field holds is read from the params, see :func:`sizing_of`.
    sizing: Sizing = field(default_factory=lambda: Sizing(rank=None))

    #: The field whose value every value of the knob is a multiple of.
    unit_field: str | None = None

    #: Fields that PEFT has no value for -> what they say.
    needs: Mapping[str, str] = field(default_factory=dict)

    #: Fields that PEFT takes and does not apply -> what it does instead.
    ignores: Mapping[str, str] = field(default_factory=dict)

    #: What else a reader of the table should know of its sizes, as a sentence.
    note: str = ""

    #: Why a benchmark cannot run it, as a sentence; empty where it can.
    refused: str = ""

    #: Whether the output right after attaching is another than the base model's, whatever its settings.
    starts_at_random: bool = False

    #: Whether the forward of a layer may be run again in the backward pass.
    checkpoints: bool = True

    #: On which rounded base models PEFT's code of it does not work: pairs of `model.load` and `train.dtype`, of which
    #: None stands for any.
    not_rounded: tuple[tuple[Load | None, str | None], ...] = ()


def _by_rank(**more: Any) -> Sizing:
    return Sizing("r", **more)


def _fixed(why: str) -> Sizing:
    return Sizing(rank=None, why_fixed=why)


_PATTERN = {"pattern": "rank_pattern"}

#: It computes with the base model's weights themselves: with their numbers, or their shape, which four bits change.
_READS: dict[str, Any] = {"not_rounded": ((None, None),)}
_READS_SHAPE: dict[str, Any] = {"not_rounded": (("nf4", None),)}
#: What it adds to a bfloat16 model stays float32, on any rounded one or on one of eight bits.
_FLOAT32: dict[str, Any] = {"not_rounded": ((None, "bfloat16"),)}
_FLOAT32_ON_INT8: dict[str, Any] = {"not_rounded": (("int8", "bfloat16"),)}

_TASKS = "{0} learns what tasks share from each example's task number, which a causal language model's text lacks."

#: PEFT type -> what is known of it.
KINDS: dict[str, Kind] = {
    "LORA": Kind(_by_rank(moves={"lora_alpha": "alpha_pattern"}, **_PATTERN)),
    # Its modules start at init_r, and their ranks come to target_r on the mean: no budget can give one rank to all.
    "ADALORA": Kind(
        Sizing("init_r", moves={"lora_alpha": None}, follow=("target_r",), rank=None),
        ignores={
            "r": "starts at init_r and ends at target_r on the mean",
            "rank_pattern": "fills it in while it trains",
            "alpha_pattern": "has one lora_alpha for all modules",
        },
        **_FLOAT32_ON_INT8,
    ),
    "LOHA": Kind(_by_rank(moves={"alpha": "alpha_pattern"}, **_PATTERN), **_READS_SHAPE),
    "LOKR": Kind(
        _by_rank(moves={"alpha": "alpha_pattern"}, **_PATTERN),
        note="Grows until its factors are full matrices.",
        **_READS_SHAPE,
    ),
    "DELORA": Kind(
        _by_rank(**_PATTERN),
        note="Its delora_lambda bounds the update as a whole, whatever the rank, and stays.",
        **_READS,
    ),
    "HIRA": Kind(_by_rank(), ignores={"rank_pattern": "builds every module at r"}),
    "GRALORA": Kind(_by_rank(moves={"alpha": None}), unit_field="gralora_k"),
    "DEFT": Kind(_by_rank(moves={"alpha": None}), **_READS),
    "PSOFT": Kind(
        _by_rank(moves={"psoft_alpha": None}), note="Grows with the square of r, up to a layer's width.", **_READS
    ),
    "HRA": Kind(_by_rank(unit=2), **_READS),  # reflections start in equal pairs, which undo each other
    "MISS": Kind(_by_rank()),
    "GLORA": Kind(_by_rank(), **_READS),
    "LILY": Kind(_by_rank()),
    "PEANUT": Kind(_by_rank(), **_READS),
    "SHIRA": Kind(_by_rank(), **_FLOAT32_ON_INT8),
    "VERA": Kind(_by_rank()),
    "PVERA": Kind(_by_rank(), **_FLOAT32),
    "VBLORA": Kind(Sizing("num_vectors"), unit_field="topk", starts_at_random=True),
    "UNILORA": Kind(Sizing("theta_d_length"), starts_at_random=True, **_READS),
    "TINYLORA": Kind(Sizing("u"), **_READS),
    # PEFT wants something before a key of FourierFT's pattern, so that no key is a module's whole name.
    "FOURIERFT": Kind(Sizing("n_frequency", pattern="n_frequency_pattern", spreads=False, rank=None)),
    "WAVEFT": Kind(Sizing("n_frequency", pattern="n_frequency_pattern", rank=None)),
    "ADAPTION_PROMPT": Kind(
        Sizing("adapter_len", rank=None),
        needs={
            "adapter_len": "how many tokens its prompt has",
            "adapter_layers": "how many of the last layers get a prompt",
        },
    ),
    "PREFIX_TUNING": Kind(
        Sizing("num_virtual_tokens", rank=None), needs=_NEEDS_TOKENS, starts_at_random=True, checkpoints=False
    ),
    "CARTRIDGE": Kind(
        Sizing("num_virtual_tokens", rank=None), needs=_NEEDS_TOKENS, starts_at_random=True, checkpoints=False
    ),
    "PROMPT_TUNING": Kind(Sizing("num_virtual_tokens", rank=None), needs=_NEEDS_TOKENS, starts_at_random=True),
    "P_TUNING": Kind(Sizing("num_virtual_tokens", rank=None), needs=_NEEDS_TOKENS, starts_at_random=True),
    "IA3": Kind(_fixed(_SHAPE), **_FLOAT32),
    "BEFT": Kind(_fixed(_SHAPE)),
    "LN_TUNING": Kind(_fixed(_SHAPE)),
    "ROAD": Kind(_fixed(_SHAPE), **_FLOAT32),
    "OFT": Kind(_fixed(_DIVIDES.format("oft_block_size"))),
    "BOFT": Kind(_fixed(_DIVIDES.format("boft_block_size"))),
    "C3A": Kind(_fixed(_DIVIDES.format("block_size")), starts_at_random=True),
    "RANDLORA": Kind(
        _fixed("it has fewer parameters the higher its r, in steps far apart; set r in the params"), **_FLOAT32
    ),
    "ADAMSS": Kind(
        _fixed("its subspaces are clusters of the base model's weights; set num_subspaces in the params"), **_READS
    ),
    "OSF": Kind(_fixed("it trains what effective_rank leaves of each weight; set that in the params"), **_READS),
    "SUPERTUNING": Kind(_fixed("it trains a share of the weights; set sparsity in the params"), **_READS),
    "FROD": Kind(_fixed("it trains a share of the weights; set sparse_rate in the params"), **_READS),
    "TRAINABLE_TOKENS": Kind(
        _fixed("it trains the embeddings of the tokens that token_indices names"),
        needs={"token_indices": "the tokens whose embeddings train"},
    ),
    "XLORA": Kind(
        refused="X-LoRA mixes LoRA adapters that are trained already; a benchmark starts from the base model."
    ),
    "POLY": Kind(refused=_TASKS.format("Poly")),
    "MULTITASK_PROMPT_TUNING": Kind(refused=_TASKS.format("Multitask prompt tuning")),
    "SHADOW": Kind(
        refused="ShadowPEFT's own loss, of its parallel network, is added in PEFT's forward to a loss from labels; the "
        "loss here is computed outside of it, and with that this is another method."
    ),
    "CPT": Kind(
        refused="CPT's loss weighs the labels within its context, in PEFT's own forward; the loss here is that of the "
        "answer's tokens alone, and with it this is another method."
    ),
}

#: Settings that make a type another method, one that needs more than a forward and a backward pass: type, field and
#: value (None: any that is not empty) -> the reason, as a clause.
REFUSED_SETTINGS: dict[tuple[str, str, str | None], str] = {
    ("LORA", "init_lora_weights", "eva"): "EVA starts from activations of training data, which nothing collects here",
    ("LORA", "init_lora_weights", "corda"): "CorDA starts from activations of sample data, which nothing collects here",
    ("LORA", "init_lora_weights", "lora_ga"): "LoRA-GA starts from gradients of data, which nothing collects here",
    ("LORA", "init_lora_weights", "loftq"): "LoftQ puts weights that it rounds itself into the base model",
    (
        "LORA",
        "alora_invocation_tokens",
        None,
    ): "activated LoRA looks for tokens in each text, and here texts are packed",
    ("LORA", "megatron_config", None): "it imports a library that the settings name",
    ("LORA", "arrow_config", None): "Arrow routes between adapters that are trained already",
    ("LORA", "kasa_config", None): "KaSA changes the base model's weights, and nothing here adds its two losses",
    ("LORA", "monteclora_config", None): "nothing here adds MonteCLoRA's own loss",
    ("ADAMSS", "use_dynamic_rank", None): "its size then depends on the base model's weights, which are not counted on",
}


#: Settings with which a type computes with the base model's weights: type, field and how its value begins -> the
#: reason, as a clause.
READING_SETTINGS: dict[tuple[str, str, str], str] = {
    ("LORA", "init_lora_weights", "pissa"): "PiSSA takes its start out of the base model's weights",
    ("LORA", "init_lora_weights", "olora"): "OLoRA takes its start out of the base model's weights, which are then "
    "rounded once more, so that the start is another model",
    ("MISS", "init_weights", "bat"): "with bat it multiplies the base model's weights",
}


def defaults_in(config_class: Any) -> dict[str, Any]:
    """Field of a configuration class -> its default."""
    values: dict[str, Any] = {}
    for each in fields(config_class):
        if each.default is not MISSING:
            values[each.name] = each.default
        elif each.default_factory is not MISSING:
            values[each.name] = each.default_factory()
    return values


def defaults_of(peft_type: str) -> dict[str, Any]:
    """Field of the type's configuration -> PEFT's default; empty for a type that PEFT lacks."""
    config_class = config_classes().get(peft_type)
    return defaults_in(config_class) if config_class else {}


def kind_of(peft_type: str) -> Kind:
    """What is known of a type; of one without an entry, that it is sized by its ``r``, if it has that."""
    if peft_type in KINDS:
        return KINDS[peft_type]
    return Kind(_by_rank() if isinstance(defaults_of(peft_type).get("r"), int) else _fixed(_SHAPE))


def sizing_of(peft_type: str, params: Mapping[str, Any]) -> Sizing:
    """How the method of ``params`` is sized."""
    kind = kind_of(peft_type)
    whole = {**defaults_of(peft_type), **params}
    unit = whole.get(kind.unit_field) if kind.unit_field else None
    return replace(
        kind.sizing,
        by_root=bool(whole.get("use_rslora")),
        unit=unit if isinstance(unit, int) and unit > 0 else kind.sizing.unit,
    )


def why_refused(peft_type: str, params: Mapping[str, Any]) -> str | None:
    """Why a benchmark cannot run the method of ``params``, as a sentence; None where it can."""
    if kind_of(peft_type).refused:
        return kind_of(peft_type).refused
    for name, does in kind_of(peft_type).ignores.items():
        if params.get(name):
            return f"PEFT takes {name} for {peft_type} and {does}. Leave {name} out."
    for (concerned, name, value), reason in REFUSED_SETTINGS.items():
        if concerned != peft_type or not params.get(name):
            continue
        if value is None or str(params[name]).lower() == value:
            return f"{reason} ({name}: {params[name]})."
    missing = {name: says for name, says in kind_of(peft_type).needs.items() if not params.get(name)}
    if missing:
        asked = " and ".join(f"{name} ({says})" for name, says in missing.items())
        return f"PEFT has no value of its own for {asked}. Set {'it' if len(missing) == 1 else 'them'} in the params."
    return None


def why_not_rounded(peft_type: str, params: Mapping[str, Any], load: Load, dtype: str) -> str | None:
    """Why the method of ``params`` cannot be on weights that are rounded by ``load``, as a clause; None where it can.

    ``dtype``: `train.dtype`.
    """
    for (concerned, name, begins), reason in READING_SETTINGS.items():
        if concerned == peft_type and str(params.get(name, "")).lower().startswith(begins):
            return f"{reason} ({name}: {params[name]})"
    for of_load, of_dtype in kind_of(peft_type).not_rounded:
        if of_load in (None, load) and of_dtype in (None, dtype):
            if of_dtype is not None:
                return f"what PEFT's {peft_type} adds to them is float32 and train.dtype is {dtype}; float32 would do"
            return f"PEFT's {peft_type} computes with the base model's weights themselves, and those are packed" + (
                "; int8 would do" if of_load == "nf4" else ""
            )
    return None


def starts_at_zero(peft_type: str, params: Mapping[str, Any]) -> bool:
    """Whether the output right after attaching is the base model's."""
    whole = {**defaults_of(peft_type), **params}
    starts = [whole[name] for name in ("init_weights", "init_lora_weights", "init_ia3_weights") if name in whole]
    return not kind_of(peft_type).starts_at_random and False not in starts
