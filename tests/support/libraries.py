"""The libraries that commands load besides ourselves, for the server that forks them (`tests.support.commands`).

They may all be loaded before us: tests/compat/test_import_orders.py.
"""

# ruff: noqa: F401
import gc

import datasets
import lm_eval.api.task
import lm_eval.tasks
import matplotlib.pyplot
import pandas
import peft
import ray
import rich.progress
import scipy.stats
import statsmodels.stats.multitest
import transformers.conversion_mapping
import transformers.models.llama.modeling_llama
import typst

gc.freeze()  # no child needs to look through all of it again
