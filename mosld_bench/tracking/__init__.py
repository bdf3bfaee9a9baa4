"""Trials as runs of a tracker of experiments, where `--report-to` asks for one; a copy, of which no report reads."""

from __future__ import annotations

from mosld_bench.tracking.tracker import Course, TrackedRun, Tracker, check_trackers, make_trackers, tracker_names
from mosld_bench.tracking.watching import Tracking

__all__ = ["Course", "TrackedRun", "Tracker", "Tracking", "check_trackers", "make_trackers", "tracker_names"]
