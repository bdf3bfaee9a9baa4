"""What happened: every file under results/, written whole or not at all, read without torch."""

from mosld_bench.records.frame import load
from mosld_bench.records.items import read_items
from mosld_bench.records.overlap import Overlap, Overlaps
from mosld_bench.records.profile import Profile
from mosld_bench.records.provenance import MetaInfo, TrialMetaInfo, command_line, meta_info
from mosld_bench.records.published import Published
from mosld_bench.records.record import EvalInfo, Metric, Outcome, Point, Record, TrainInfo
from mosld_bench.records.store import Sources, Store

__all__ = [  # noqa: RUF022 - as they build on each other
    "Record", "Metric", "Point", "TrainInfo", "EvalInfo", "Outcome",
    "Overlap", "Overlaps", "Profile", "Published",
    "MetaInfo", "TrialMetaInfo", "command_line", "meta_info",
    "Store", "Sources", "load", "read_items",
]  # fmt: skip
