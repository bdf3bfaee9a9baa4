"""Result folders of several machines put side by side: which records are one, which contradict each other, what stays.

    merge = plan_merge([Path("lab-a/results"), Path("lab-b/results")], Path("results"))
    write_merge(merge)

A trial is known by its id, which is the same on every machine. Records of one id with the same numbers are one record;
times, memory and provenance are no numbers. A finished trial counts before one that a search has stopped, and that
before one that failed. What lies beside trials comes along: overlaps, profiles, texts of items, and what was
scored without being trained. What is merged is copied byte for byte; the folders that it comes from stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from mosld_bench import collector
from mosld_bench.errors import BadFileError, BenchError
from mosld_bench.records.numbers import Difference, differences
from mosld_bench.records.overlap import Overlaps
from mosld_bench.records.profile import Profile
from mosld_bench.records.provenance import command_line
from mosld_bench.records.record import Record
from mosld_bench.records.store import PARTS, Store, check_writable

if TYPE_CHECKING:
    import pandas as pd

Keep = Literal["first", "newest"]
"""Of records that contradict each other: that of the folder which is named first, or the one that was made last."""

_RANK = {"failed": 0, "stopped": 1, "finished": 2}
_MOST_CONFLICTS = 20  # that an error lists


class Found(NamedTuple):
    """A record, the folder of its trial, and which of the merged folders that is in."""

    record: Record
    folder: Path
    source: Path

    @property
    def machine(self) -> str:
        """Where and when it was made, as far as it tells."""
        meta = self.record.meta_info
        hardware = meta.get("hardware") or {}
        known = (hardware.get("gpu") or hardware.get("cpu"), str(meta.get("started", ""))[:10])
        return f"{self.source} ({', '.join(text for text in known if text) or 'of an unknown machine'})"


class Conflict(NamedTuple):
    """Two records of one trial with different numbers; ``ours`` is in the folder that is named first."""

    ours: Found
    theirs: Found
    differences: tuple[Difference, ...]

    @property
    def sentence(self) -> str:
        """Which numbers, and from which machines."""
        first = self.differences[0]
        more = len(self.differences) - 1
        trial = self.ours.record.trial
        return (
            f"{trial.study}/{trial.id}: {first.field} is {first.ours} in {self.ours.machine}, {first.theirs} in "
            f"{self.theirs.machine}{f'; {more} more numbers differ' if more else ''}"
        )


class Unreadable(NamedTuple):
    """A folder that takes no part, or a study's of which a file does not, and why."""

    folder: Path
    source: Path
    reason: str


class Copy(NamedTuple):
    """What the folder of a trial is to be made of: all that lies in ``of``, and the missing parts from others.

    ``parts``: name of a file or folder -> where it is. ``of`` is None where what is there stays.
    """

    record: Record
    of: Path | None
    parts: dict[str, Path]


@dataclass
class Merge:
    """What a merge comes to. ``counts``: (folder, study) -> how many of its trials are `copied`, `same`, `passed over`.

    `copied` are new or take the place of another; `same` have the numbers of what is kept; `passed over` failed, were
    stopped, or lost to another by ``--keep``. ``kept``: trials in the target afterwards, by study.
    """

    target: Path
    copies: list[Copy] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    counts: dict[tuple[Path, str], Counter[str]] = field(default_factory=dict)
    kept: Counter[str] = field(default_factory=Counter)
    overlaps: dict[str, list[Overlaps]] = field(default_factory=dict)
    """Study -> the overlaps of the folders that are merged."""
    profiles: dict[str, Profile] = field(default_factory=dict)
    """Study -> its profile, of the first folder that has one."""
    scored: dict[tuple[str, str], Path] = field(default_factory=dict)
    """(study, id) -> a folder of what was scored without being trained here; one id has one content."""
    texts: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    """Study -> the texts of items that the folders have."""


def plan_merge(folders: Sequence[Path], target: Path, keep: Keep | None = None) -> Merge:
    """What putting ``folders`` together in ``target`` takes; writes nothing.

    A folder is one of results, of a workspace that has ``results``, or of one study's trials. What is in ``target``
    already counts as the first folder. With ``keep`` records that contradict each other are no conflicts.

    Raises BenchError for a folder that is not there or has no trial.
    """
    merge = Merge(target)
    by_trial: dict[tuple[str, str], list[Found]] = {}
    with collector.off():
        for source, trials in _sources(folders, target).items():
            for folder in trials:
                try:
                    record = Store.read(folder)
                except (BadFileError, OSError) as error:
                    merge.unreadable.append(Unreadable(folder, source, _told(error)))
                    continue
                by_trial.setdefault((record.trial.study, record.trial.id), []).append(Found(record, folder, source))
    for (study, trial), found in by_trial.items():
        for member in found:
            merge.counts.setdefault((member.source, study), Counter())["trials"] += 1
        if not _blocked(merge, target / study / trial):
            merge.kept[study] += 1
            _decide(merge, found, keep)
    members = [member for found in by_trial.values() for member in found if member.source != target]
    for study, place, source in dict.fromkeys((m.record.trial.study, m.folder.parent, m.source) for m in members):
        _look_around(merge, study, place, source)
    for folder in folders:
        results = _results(folder)
        for file in sorted([*results.glob("*/*/scored.json"), *results.glob("*/scored.json")]):
            merge.scored.setdefault((file.parent.parent.name, file.parent.name), file.parent)
    return merge


def check_conflicts(merge: Merge) -> None:
    """Raises BenchError, with every conflict, where records contradict each other."""
    if not merge.conflicts:
        return
    lines = [conflict.sentence for conflict in merge.conflicts[:_MOST_CONFLICTS]]
    lines += [f"and {rest} more" for rest in [len(merge.conflicts) - _MOST_CONFLICTS] if rest > 0]
    count = "One trial has" if len(merge.conflicts) == 1 else f"{len(merge.conflicts)} pairs of records have"
    raise BenchError(
        "\n  ".join([f"{count} one id and different numbers:", *lines])
        + "\nNothing was written. --keep first takes those of the folder that is named first (what --to has comes "
        "before all), --keep newest those that were made last."
    )


def write_merge(merge: Merge) -> None:
    """Write what `plan_merge` came to: all of it is copied aside first, and then put into its places.

    Raises BenchError where there are conflicts, nothing can be written, or a run holds the folder of a study.
    """
    check_conflicts(merge)
    check_writable(merge.target)
    store = Store(merge.target)
    studies = {record.trial.study for record, _, _ in merge.copies} | {study for study, _ in merge.scored}
    with ExitStack() as stack:
        for study in sorted(studies):  # the other files of a study are written one by one, and whole
            stack.enter_context(store.held(study, command_line()))
        store.adopt(merge.copies, merge.scored)
        for study, overlaps in merge.overlaps.items():
            store.add_overlaps(study, overlaps)
        for study, texts in merge.texts.items():
            store.add_texts(study, texts)
        for profile in merge.profiles.values():
            if not store.profile_file(profile.study).exists():
                store.write_profile(profile)


def _sources(folders: Sequence[Path], target: Path) -> dict[Path, list[Path]]:
    """Folder -> the folders of its trials, the target first; each once, however it is called."""
    sources = {target: Store(target).trial_folders()} if target.is_dir() else {}
    known = {target.resolve()}
    for folder in folders:
        if not folder.is_dir():
            raise BenchError(f"There is no folder {folder} to merge.")
        results = _results(folder)
        if results.resolve() in known:
            continue
        known.add(results.resolve())
        whole = results.absolute()
        trials = Store(results).trial_folders() or Store(whole.parent).trial_folders(whole.name)
        if not trials:
            raise BenchError(
                f"{folder} holds no trial: a folder to merge is one of results (STUDY/TRIAL/record.json), of a "
                f"workspace that has results/, or of one study's trials."
            )
        sources[folder] = trials
    return sources


def _results(folder: Path) -> Path:
    """The folder of results of a workspace, else the folder itself."""
    return folder / "results" if (folder / "results").is_dir() else folder


def _look_around(merge: Merge, study: str, place: Path, source: Path) -> None:
    """Take what lies beside the trials of a study, in its folder ``place``."""
    store = Store(place.parent)
    try:
        merge.overlaps.setdefault(study, []).extend(store.overlaps(place.name))
        profile, texts = store.profile(place.name), store.texts(place.name)
    except BadFileError as error:
        merge.unreadable.append(Unreadable(place, source, str(error)))
    else:
        if profile is not None:
            merge.profiles.setdefault(study, profile.model_copy(update={"study": study}))
        if texts is not None:
            merge.texts.setdefault(study, []).append(texts)


def _told(error: BadFileError | OSError) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)


def _blocked(merge: Merge, place: Path) -> bool:
    """Whether what cannot be read lies where a trial would go: it is not ours to throw away."""
    return any(unreadable.folder == place for unreadable in merge.unreadable)


def _decide(merge: Merge, found: list[Found], keep: Keep | None) -> None:
    """Which of the records of one trial is kept, and what is copied for it."""
    best = max(map(_rank, found))
    rivals = [member for member in found if _rank(member) == best]
    kept = max(rivals, key=_started) if keep == "newest" else rivals[0]  # the first of equals
    same = [kept]
    for member in rivals:
        if member is kept:
            continue
        unlike = differences(kept.record, member.record) if kept.record.status != "failed" else []
        if not unlike:
            same.append(member)
        elif keep is None:
            merge.conflicts.append(Conflict(kept, member, tuple(unlike)))
    in_target = next((member for member in found if member.source == merge.target), None)
    if in_target in same:
        assert in_target is not None
        kept = in_target  # nothing is copied over what says the same
    parts = {} if kept.record.status == "failed" else _missing_parts(kept, same)
    if kept.source != merge.target or parts:
        merge.copies.append(Copy(kept.record, None if kept.source == merge.target else kept.folder, parts))
    for member in found:
        count = merge.counts[member.source, member.record.trial.study]
        if member.source != merge.target:
            count["copied" if member is kept else "same" if member in same else "passed over"] += 1


def _rank(found: Found) -> tuple[int, int]:
    """What goes before what: of runs that a search has stopped, those that went further."""
    info = found.record.train_info
    steps = info.steps if info and found.record.status == "stopped" else 0
    return _RANK[found.record.status], steps


def _started(found: Found) -> str:
    return str(found.record.meta_info.get("started", ""))


def _missing_parts(kept: Found, same: Sequence[Found]) -> dict[str, Path]:
    """What lies beside other records with the same numbers, and not beside the one that is kept."""
    parts: dict[str, Path] = {}
    for name in PARTS:
        if not (kept.folder / name).exists():
            there = (member.folder / name for member in same if (member.folder / name).exists())
            if place := next(there, None):
                parts[name] = place
    return parts
