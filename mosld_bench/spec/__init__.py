"""What is asked: recipes, studies, trials and budgets as plain data read from YAML; no torch."""

from mosld_bench.spec.ablation import Ablate, Factorial
from mosld_bench.spec.budget import NATIVE, Budget, Count, Native, Rank, Share, SizeOf
from mosld_bench.spec.design_space import Coordinates
from mosld_bench.spec.recipe import Optimizer, Recipe, load_recipes, select
from mosld_bench.spec.selection import GeneralSweep, Selection
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import (
    Condition,
    Domain,
    EvaluateSpec,
    Fit,
    GeneralData,
    ModelSpec,
    PlannedTrial,
    Resources,
    Setting,
    TrainSpec,
    Trial,
)
from mosld_bench.spec.tuning import RateSource, Tuning, read_tuning
from mosld_bench.spec.workspace import Workspace

__all__ = [  # noqa: RUF022 - as they build on each other
    "Recipe", "Optimizer", "load_recipes", "select",
    "Budget", "Native", "NATIVE", "Rank", "Count", "Share", "SizeOf",
    "Study", "Selection", "GeneralSweep", "Ablate", "Factorial",
    "ModelSpec", "TrainSpec", "EvaluateSpec", "GeneralData", "Resources", "Setting",
    "Trial", "Condition", "Domain", "Fit", "PlannedTrial",
    "Tuning", "RateSource", "read_tuning",
    "Coordinates",
    "TaskFiles", "Workspace",
]  # fmt: skip
