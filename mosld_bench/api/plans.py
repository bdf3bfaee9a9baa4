"""`plan`: what a study will run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mosld_bench.api import html
from mosld_bench.api.places import Place, paths, study_of, words, workspace_of
from mosld_bench.spec import foreign_code
from mosld_bench.spec.study import Study

if TYPE_CHECKING:
    import pandas as pd

    from mosld_bench.scheduling import Plan

_GPUS, _GPU_MEMORY_GB = 8, 80.0  # that `sentences` are told for


@dataclass(frozen=True)
class StudyPlan:
    """A study's trials, each with its exact size, before anything is run. A notebook shows it as a table."""

    study: Study
    plan: Plan

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row a trial: its id, recipe, setting, budget, seed, exact parameters, memory in bytes, GPU-hours.

        The columns are the keys of `mosld-bench plan --json`; memory and hours are estimates, and may be missing.
        """
        import pandas as pd

        return pd.DataFrame(self.plan.rows())

    @cached_property
    def sentences(self) -> list[str]:
        """What it takes in words, on this machine too where it has no GPU, of which a core is measured then."""
        import torch

        from mosld_bench import display
        from mosld_bench.trial.device import core_rate

        rate = None if torch.cuda.is_available() else core_rate
        return display.plan_sentences(self.plan, _GPUS, _GPU_MEMORY_GB * 1e9, rate)

    def __len__(self) -> int:
        return len(self.plan.planned)

    def __repr__(self) -> str:
        return f"<plan of {self.study.name}: {len(self)} trials>"

    def _repr_html_(self) -> str:
        from mosld_bench import display

        return html.whole(html.table(display.plan_table(self.plan)), html.bullets(self.sentences))


def plan(
    study: Study | Place,
    *,
    root: Place | None = None,
    include_paths: Sequence[Place] = (),
    model_root: Place | None = None,
    plugins: Sequence[str] = (),
    allow_code: bool = False,
) -> StudyPlan:
    """Plan ``study``, given as it is or by its name, folder or file, as `mosld-bench plan` does. Starts nothing.

    ``root``: the workspace, by default the one around; ``include_paths``: folders of more lm-eval task definitions;
    ``model_root``: folder of models; ``plugins``: modules that register methods;
    ``allow_code``: let a recipe's ``module:Class`` run that is not installed.

    Raises BenchError for what is not there, and for budgets that recipes cannot meet.
    """
    from mosld_bench.methods import registry
    from mosld_bench.scheduling import make_plan

    workspace = workspace_of(root)
    asked = study_of(study, workspace)
    with foreign_code.allowed(allow_code):
        for module in words(plugins):
            registry.load_plugin(module)
        root_of_models = None if model_root is None else Path(model_root)
        made = make_plan(asked, workspace, include_paths=paths(include_paths), model_root=root_of_models)
    return StudyPlan(asked, made)
