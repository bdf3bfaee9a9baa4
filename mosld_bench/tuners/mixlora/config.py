"""The settings of MixLoRA."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft.config import PeftConfig
from peft.utils.peft_types import PeftType

from mosld_bench.tuners.mixture.config import MixtureConfig, require


@dataclass
class MixLoraConfig(PeftConfig):  # type: ignore[misc]
    """Routed LoRA experts on feed-forward blocks, LoRA on linear layers. Field names are PEFT's where it has the field.

    Raises BenchError for a setting without meaning.
    """

    r: int = field(default=8, metadata={"help": "rank of every expert, and of the attention's LoRA"})
    lora_alpha: float = field(default=16, metadata={"help": "every update is scaled by lora_alpha / r"})
    target_modules: list[str] | str | None = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"],
        metadata={"help": "names of the linear layers with plain LoRA, or a regular expression"},
    )
    ffn_modules: list[str] = field(
        default_factory=lambda: ["mlp"], metadata={"help": "names of the feed-forward blocks that get experts"}
    )
    exclude_modules: list[str] | str | None = field(default=None)
    rank_pattern: dict[str, int] = field(default_factory=dict, metadata={"help": "module name -> its own r"})
    alpha_pattern: dict[str, float] = field(default_factory=dict, metadata={"help": "module name -> its own alpha"})
    experts: int = field(default=8, metadata={"help": "experts a feed-forward block"})
    top_k: int = field(default=2, metadata={"help": "experts active a token; their gates sum to one"})
    balance_coef: float = field(default=0.01, metadata={"help": "weight of the balance loss"})
    dropout: float = field(default=0.0, metadata={"help": "share of every LoRA's input that is zeroed"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.MIXLORA
        if isinstance(self.target_modules, set):
            self.target_modules = sorted(self.target_modules)
        require(isinstance(self.experts, int) and self.experts >= 2, "experts", self.experts, "an integer of 2 or more")
        require(isinstance(self.top_k, int), "top_k", self.top_k, f"1 to {self.experts}, the number of experts")
        # MixLoRA always divides the gates by their sum, and one gate divided by itself is 1 (see MixtureConfig).
        require(self.top_k != 1 or self.balance_coef > 0, "top_k", self.top_k,
                 "2 or more without a balance loss: a single gate is 1 whatever the router says, which then learns "
                 "nothing. Set a balance_coef above 0")  # fmt: skip
        require(isinstance(self.ffn_modules, list) and bool(self.ffn_modules), "ffn_modules", self.ffn_modules,
                "a list of module names")  # fmt: skip
        self.coordinates(self.experts)

    def coordinates(self, experts: int) -> MixtureConfig:
        """These settings as a point of the mixture's design space; one expert is plain LoRA."""
        return MixtureConfig(
            r=self.r,
            lora_alpha=self.lora_alpha,
            experts=experts,
            top_k=self.top_k if experts > 1 else None,
            balance_coef=self.balance_coef if experts > 1 else 0.0,
            dropout=self.dropout,
            dropout_on="input" if self.dropout else "none",
            inference_mode=self.inference_mode,
        )
