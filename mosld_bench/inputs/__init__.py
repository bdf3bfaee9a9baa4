"""What a trial reads: base models and task items, where they are and how they get here.

The names that other packages use; each is loaded when it is asked for, since some of them import lm-eval. `fetch_model`
and `fetch_data` are functions of the modules of their name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosld_bench._lazy import door

if TYPE_CHECKING:
    from mosld_bench.inputs.audit import Checked as Checked
    from mosld_bench.inputs.audit import Vocabulary as Vocabulary
    from mosld_bench.inputs.audit import refuse as refuse
    from mosld_bench.inputs.audit import uses_of as uses_of
    from mosld_bench.inputs.audit import whole as whole
    from mosld_bench.inputs.audit_cache import AuditCache as AuditCache
    from mosld_bench.inputs.contamination import overlaps as overlaps
    from mosld_bench.inputs.encoding import Request as Request
    from mosld_bench.inputs.encoding import encode_pairs as encode_pairs
    from mosld_bench.inputs.items import Encoded as Encoded
    from mosld_bench.inputs.items import examples as examples
    from mosld_bench.inputs.items import passages as passages
    from mosld_bench.inputs.items import sample as sample
    from mosld_bench.inputs.items import split as split
    from mosld_bench.inputs.items import training_docs as training_docs
    from mosld_bench.inputs.models import ensure_weights as ensure_weights
    from mosld_bench.inputs.models import load_base as load_base
    from mosld_bench.inputs.models import load_config as load_config
    from mosld_bench.inputs.models import load_tokenizer as load_tokenizer
    from mosld_bench.inputs.models import weights_source as weights_source
    from mosld_bench.inputs.overlap_cache import OverlapSearch as OverlapSearch
    from mosld_bench.inputs.overlap_cache import cached_overlaps as cached_overlaps
    from mosld_bench.inputs.rendering import BadItemError as BadItemError
    from mosld_bench.inputs.rendering import Example as Example
    from mosld_bench.inputs.rendering import requests as requests
    from mosld_bench.inputs.rendering import training_example as training_example
    from mosld_bench.inputs.steadiness import check_steady as check_steady
    from mosld_bench.inputs.tasks import TaskLoader as TaskLoader

_MODULES = {
    "Checked": "audit",
    "Vocabulary": "audit",
    "refuse": "audit",
    "uses_of": "audit",
    "whole": "audit",
    "AuditCache": "audit_cache",
    "OverlapSearch": "overlap_cache",
    "cached_overlaps": "overlap_cache",
    "overlaps": "contamination",
    "Encoded": "items",
    "Request": "encoding",
    "encode_pairs": "encoding",
    "examples": "items",
    "passages": "items",
    "sample": "items",
    "split": "items",
    "training_docs": "items",
    "ensure_weights": "models",
    "load_base": "models",
    "load_config": "models",
    "load_tokenizer": "models",
    "weights_source": "models",
    "BadItemError": "rendering",
    "Example": "rendering",
    "requests": "rendering",
    "training_example": "rendering",
    "check_steady": "steadiness",
    "TaskLoader": "tasks",
}


__getattr__ = door(__name__, _MODULES)
