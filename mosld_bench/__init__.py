"""mosld-bench: compare parameter-efficient fine-tuning methods at equal trainable-parameter budgets.

The public names, nothing else. Importing the package is cheap; torch is loaded by the commands that need it.
"""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"]:  # `python -m mosld_bench`: before a file here could take the place of a library
    from mosld_bench import _path as _path

from typing import TYPE_CHECKING

from mosld_bench._lazy import door
from mosld_bench._version import __version__ as __version__
from mosld_bench.compat.bitsandbytes import guard_import
from mosld_bench.compat.peft import register_with_peft

if TYPE_CHECKING:
    from mosld_bench.api import Comparison, Report, StudyPlan, compare, plan, report, run
    from mosld_bench.compat.peft import register_tuner
    from mosld_bench.errors import BenchError
    from mosld_bench.methods import Method, TunerMethod, check_method, fit_budget, get, load_adapter, register
    from mosld_bench.records.frame import load
    from mosld_bench.records.record import Record
    from mosld_bench.reporting.build import build_report
    from mosld_bench.spec.recipe import Recipe
    from mosld_bench.spec.study import Study
    from mosld_bench.spec.trial import Fit, Trial
    from mosld_bench.trial.execute import execute
    from mosld_bench.tuners.mixture import MixtureConfig, aux_loss

_MODULES = {
    "BenchError": "errors",
    "Fit": "spec.trial",
    "fit_budget": "methods.fit",
    "execute": "trial.execute",
    "Recipe": "spec.recipe",
    "Record": "records.record",
    "load": "records.frame",
    "Method": "methods.base",
    "get": "methods.registry",
    "register": "methods.registry",
    "build_report": "reporting.build",
    "Study": "spec.study",
    "Trial": "spec.trial",
    "check_method": "methods.contract",
    "TunerMethod": "methods.builtin",
    "register_tuner": "compat.peft",
    "load_adapter": "methods.saved",
    "MixtureConfig": "tuners.mixture",
    "aux_loss": "tuners.mixture",
    **dict.fromkeys(("Comparison", "Report", "StudyPlan", "compare", "plan", "report", "run"), "api"),
}
__all__ = [  # noqa: RUF022 - grouped as the nouns of the project
    "BenchError",
    "Fit", "fit_budget",
    "Method", "TunerMethod", "get", "register", "register_tuner", "check_method", "load_adapter",
    "MixtureConfig", "aux_loss",
    "Recipe",
    "Study", "Trial",
    "execute",
    "Record", "load",
    "build_report",
    "plan", "run", "report", "compare", "StudyPlan", "Report", "Comparison",
]  # fmt: skip


__getattr__ = door(__name__, _MODULES)


guard_import()
register_with_peft()
