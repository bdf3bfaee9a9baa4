"""The coordinates of the mixture's design space; an ablation moves one of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft.config import PeftConfig
from peft.utils.peft_types import PeftType

from mosld_bench.errors import BenchError
from mosld_bench.spec.design_space import (
    BALANCE_FORMS,
    BALANCE_REDUCES,
    DOWN_INITS,
    DROPOUT_MATRICES,
    DROPOUT_PLACES,
    FREEZABLE,
    ROUTER_INPUTS,
    ROUTERS,
    SHARES,
    UP_INITS,
    BalanceForm,
    BalanceReduce,
    Coordinates,
    DownInit,
    DropoutMatrix,
    DropoutPlace,
    Freezable,
    Router,
    RouterInput,
    Share,
    UpInit,
    dropout_rates,
)


@dataclass
class MixtureConfig(PeftConfig):  # type: ignore[misc]
    """A mixture of LoRA experts on linear layers. Field names are PEFT's wherever PEFT has the field.

    Raises BenchError for a combination that has no meaning, such as a top-K above the number of experts.
    """

    r: int = field(default=Coordinates.r, metadata={"help": "rank of every expert"})
    lora_alpha: float = field(
        default=Coordinates.lora_alpha, metadata={"help": "the update is scaled by lora_alpha / r"}
    )
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "names of the linear layers to adapt, a regular expression, or all-linear"}
    )
    exclude_modules: list[str] | str | None = field(default=None)
    rank_pattern: dict[str, int] = field(default_factory=dict, metadata={"help": "module name -> its own r"})
    alpha_pattern: dict[str, float] = field(default_factory=dict, metadata={"help": "module name -> its own alpha"})
    experts_pattern: dict[str, int] = field(
        default_factory=dict, metadata={"help": "module name -> its own number of experts"}
    )
    experts: int | list[int] = field(
        default=Coordinates.experts,
        metadata={"help": "experts a module; a list is spread over equal parts of the depth"},
    )
    share: Share = field(
        default=Coordinates.share,
        metadata={
            "help": "which matrix all experts of a module share: LoRA's A is down, B is up; both: an expert is a "
            "core, r x r, between them"
        },
    )
    router: Router = field(
        default=Coordinates.router,
        metadata={
            "help": "learned; uniform: no router, and every gate one over the number of experts; magnitude: the "
            "gates of the top-K of |A x|, one row an expert, are 1"
        },
    )
    router_input: RouterInput = field(
        default=Coordinates.router_input,
        metadata={
            "help": "what the router reads: the module's x, hidden (A x), or noise that only a token's position decides"
        },
    )
    frozen: list[Freezable] = field(
        default_factory=list, metadata={"help": "what stays at its initial values: down, router, or both"}
    )
    down_init: DownInit = field(
        default=Coordinates.down_init,
        metadata={"help": "gaussian, or sparse: a share top_k / experts of each row, the rest zero"},
    )
    up_init: UpInit = field(
        default=Coordinates.up_init,
        metadata={"help": "zero, or random: what the start adds under even gates is then taken off for good"},
    )
    top_k: int | None = field(default=Coordinates.top_k, metadata={"help": "experts active a token; none: all of them"})
    renormalize: bool = field(
        default=Coordinates.renormalize, metadata={"help": "whether the gates of the top-K sum to one"}
    )
    capacity: float | None = field(
        default=Coordinates.capacity,
        metadata={"help": "in training an expert takes at most this times its even share of a sequence's picks"},
    )
    balance_coef: float = field(default=Coordinates.balance_coef, metadata={"help": "weight of the balance loss"})
    balance_form: BalanceForm = field(
        default=Coordinates.balance_form,
        metadata={"help": "switch, or counts: MoSLD's Eq. 4 read word by word; see tuners.mixture.routing"},
    )
    balance_reduce: BalanceReduce = field(
        default=Coordinates.balance_reduce,
        metadata={"help": "mean over the adapted modules, or the sum over layers of the mean over a layer's modules"},
    )
    balance_step: float = field(
        default=Coordinates.balance_step,
        metadata={
            "help": "how far a bias of the choice moves after a step, towards experts with less than their share"
        },
    )
    dropout: float | dict[str, float] = field(
        default=Coordinates.dropout,
        metadata={"help": "share of what dropout_on names that is zeroed, or a mapping: place -> share"},
    )
    dropout_on: DropoutPlace = field(
        default=Coordinates.dropout_on,
        metadata={
            "help": "the adapter's input, the weights of one matrix, their update, the output of down (expert_hidden: "
            "under a mask for each expert), or the router's probabilities before the top-K; none where dropout is a "
            "mapping"
        },
    )
    dropout_matrix: DropoutMatrix = field(
        default=Coordinates.dropout_matrix,
        metadata={"help": "the matrix that dropout on weight or update falls on: down, up, or the shared one "
                  "(down where none is shared)"},
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.LORA_MIXTURE
        if isinstance(self.target_modules, set):
            self.target_modules = sorted(self.target_modules)
        counts = self.experts if isinstance(self.experts, list) else [self.experts]
        require(bool(counts) and all(isinstance(n, int) and n >= 1 for n in counts), "experts", self.experts,
                 "a positive integer, or a list of them from the first part of the depth to the last")  # fmt: skip
        require(isinstance(self.r, int) and self.r >= 1, "r", self.r, "a positive integer")
        require(self.share in SHARES, "share", self.share, "none, down, up or both")
        own = self.experts_pattern.values() if isinstance(self.experts_pattern, dict) else [0]
        require(all(isinstance(n, int) and n >= 1 for n in own), "experts_pattern", self.experts_pattern,
                 "positive integers")  # fmt: skip
        counts = [*counts, *own]
        fewest = min(counts)
        require(self.top_k is None or (isinstance(self.top_k, int) and 1 <= self.top_k <= fewest), "top_k",
                 self.top_k, f"none (dense routing) or 1 to {fewest}, the fewest experts of a layer")  # fmt: skip
        self._check_dropout(fewest)
        self._check_router(max(counts))
        self._check_start()
        require(self.capacity is None or (self.capacity > 0 and self.top_k is not None), "capacity", self.capacity,
                 f"none, or above 0 with a top_k (it is {self.top_k})")  # fmt: skip
        require(self.balance_coef >= 0, "balance_coef", self.balance_coef, "0 or more")
        require(self.balance_form in BALANCE_FORMS, "balance_form", self.balance_form, "switch or counts")
        require(self.balance_reduce in BALANCE_REDUCES, "balance_reduce", self.balance_reduce, "mean or sum")
        # One gate divided by itself is 1 whatever the router says, so that the task's loss does not reach the router.
        # With Switch's balance loss it still learns to spread the tokens; that of the counts is constant there too.
        balanced = self.balance_coef > 0 and self.balance_form == "switch"
        trains = "router" not in self.frozen
        require(self.top_k != 1 or max(counts) == 1 or not self.renormalize or balanced or not trains, "top_k", 1,
                 "2 or more where the gates are renormalised, since a single one is then 1 whatever the router says "
                 "and the router learns nothing. Set renormalize: false, or a balance_coef above 0")  # fmt: skip

    def _check_router(self, most: int) -> None:
        """Raise BenchError for routers and frozen parameters without meaning; ``most`` experts of a layer."""
        require(self.router in ROUTERS, "router", self.router, "learned, uniform or magnitude")
        require(self.router_input in ROUTER_INPUTS, "router_input", self.router_input, "x, hidden or noise")
        require(isinstance(self.frozen, list) and set(self.frozen) <= set(FREEZABLE)
                and len(set(self.frozen)) == len(self.frozen), "frozen", self.frozen,
                "a list of down and router, each once at most")  # fmt: skip
        if most == 1:
            require(self.router != "uniform", "router", self.router, "learned with one expert, which has no router")
            require(self.router_input == "x", "router_input", self.router_input, "x with one expert, without a router")
            require("router" not in self.frozen, "frozen", self.frozen, "down with one expert, which has no router")
        if self.router != "learned":
            how = f"where gates are {self.router}"
            require(self.router_input == "x", "router_input", self.router_input, f"x {how}")
            require("router" not in self.frozen, "frozen", self.frozen, f"down {how}, without a router")
            require(self.balance_coef == 0, "balance_coef", self.balance_coef, f"0 {how}")
        if self.router == "uniform":
            require(self.top_k is None, "top_k", self.top_k, "none where gates are uniform, since no expert is ahead")
        if self.router == "magnitude":
            how = "where gates are by magnitude"
            require(self.r == 1, "r", self.r, f"1 {how}, of a row of A each")
            require(set(self.rank_pattern.values()) <= {1}, "rank_pattern", self.rank_pattern, f"1 {how}")
            require(self.share == "none", "share", self.share, f"none {how}")
            require(self.top_k is not None, "top_k", self.top_k, f"a number of experts {how}")
            require(not self.renormalize, "renormalize", self.renormalize, f"false {how}, since each is 1")
            require("gates" not in self.dropouts, "dropout", self.dropout, f"none on gates {how}")
        if "router" in self.frozen:
            require(self.balance_coef == 0, "balance_coef", self.balance_coef,
                    "0 with a frozen router, since the loss would move what the router reads instead")  # fmt: skip
        require(self.balance_step >= 0, "balance_step", self.balance_step, "0 or more")
        if self.balance_step:
            require(self.top_k is not None, "balance_step", self.balance_step, "0 without a top_k: it balances picks")
            require("gates" not in self.dropouts, "balance_step", self.balance_step, "0 with dropout on gates")

    def _check_start(self) -> None:
        """Raise BenchError for initial values without meaning."""
        require(self.down_init in DOWN_INITS, "down_init", self.down_init, "gaussian or sparse")
        require(self.down_init == "gaussian" or self.top_k is not None, "down_init", self.down_init,
                "gaussian without a top_k; sparse keeps top_k / experts of each row")  # fmt: skip
        require(self.up_init in UP_INITS, "up_init", self.up_init, "zero or random")
        if self.up_init == "random":
            require(self.share == "down", "up_init", self.up_init, f"zero unless down is shared (it is {self.share})")
            require(self.top_k is None, "up_init", self.up_init, "zero with a top_k, as gates have to be even at first")
            require("router" not in self.frozen, "frozen", self.frozen, "down with up_init random: the router is zero")

    def _check_dropout(self, fewest: int) -> None:
        """Raise BenchError for places or rates of dropout without meaning; ``fewest`` experts of a layer."""
        places, places_text = set(DROPOUT_PLACES) - {"none"}, "input, weight, update, hidden, expert_hidden or gates"
        require(self.dropout_matrix in DROPOUT_MATRICES, "dropout_matrix", self.dropout_matrix, "shared, down or up")
        require(self.dropout_on in DROPOUT_PLACES, "dropout_on", self.dropout_on, f"none, {places_text}")
        if isinstance(self.dropout, dict):
            require(set(self.dropout) <= places, "dropout", self.dropout, f"a share for each of {places_text}")
            require(self.dropout_on == "none", "dropout_on", self.dropout_on,
                     f"none where dropout names the places itself ({self.dropout})")  # fmt: skip
        shares = self.dropout.values() if isinstance(self.dropout, dict) else [self.dropout]
        require(all(isinstance(share, int | float) and 0 <= share < 1 for share in shares), "dropout", self.dropout,
                 "at least 0 and below 1")  # fmt: skip
        require(isinstance(self.dropout, dict) or (self.dropout > 0) == (self.dropout_on != "none"), "dropout_on",
                 self.dropout_on, f"none exactly when dropout is 0 (it is {self.dropout})")  # fmt: skip
        acting = self.dropouts
        require("gates" not in acting or fewest > 1, "dropout_on", self.dropout_on,
                 "gates only where every layer has more than one expert")  # fmt: skip
        require("expert_hidden" not in acting or self.share == "down", "dropout_on", self.dropout_on,
                 "expert_hidden only where down is shared; else hidden has a mask for each expert")  # fmt: skip
        require(not {"weight", "update"} <= set(acting), "dropout", self.dropout,
                 "weight or update, not both: they are two readings of one dropout")  # fmt: skip
        require("update" not in acting or self.masked_matrix not in self.frozen, "frozen", self.frozen,
                 f"not {self.masked_matrix}, of which dropout leaves out updates: it has none")  # fmt: skip
        require(self.dropout_matrix == "shared" or {"weight", "update"} & set(acting), "dropout_matrix",
                 self.dropout_matrix, "shared without dropout on weight or update")  # fmt: skip

    @property
    def masked_matrix(self) -> str:
        """The matrix, down or up, that dropout on weights or updates falls on."""
        if self.dropout_matrix != "shared":
            return self.dropout_matrix
        return "up" if self.share == "up" else "down"

    @property
    def dropouts(self) -> dict[str, float]:
        """Place -> share of it that is zeroed in training, of each dropout that acts."""
        return dropout_rates(self.dropout, self.dropout_on)


def require(holds: object, key: str, value: object, allowed: str) -> None:
    """Raise BenchError unless ``holds``."""
    if not holds:
        raise BenchError(f"The mixture's {key} is {value!r}; allowed is {allowed}.")


def allocate(experts: int | list[int], layer: int, layers: int) -> int:
    """Experts of ``layer`` (from 0) among ``layers``.

    A list of g counts cuts the depth into g parts: layer l is in part floor(l * g / layers). Where g does not divide
    the depth, the parts differ by at most one layer: four counts on 30 layers cover 8, 7, 8 and 7 of them.
    """
    if isinstance(experts, int):
        return experts
    if len(experts) > layers:
        raise BenchError(f"experts lists {len(experts)} parts of the depth, but the model has {layers} layers.")
    return experts[layer * len(experts) // layers]
