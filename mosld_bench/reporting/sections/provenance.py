"""The section Provenance: where every number comes from, and how to make it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from mosld_bench.format import counted, listed
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Code, Section, bullets, paragraph, section
from mosld_bench.reporting.labels import hardware_label, named


def provenance(analysis: Analysis) -> Section:
    """Which records are used, what made them, and the commands that make them again."""
    metas = [record.meta_info for record in analysis.records]
    commits = _distinct(str(meta["commit"])[:12] for meta in metas if meta.get("commit"))
    return section(
        "Provenance",
        bullets([*_records(analysis, metas), *_code(analysis, metas, commits), *_runs(metas)]),
        paragraph("The records were made by the commands below; repeated, they run what is missing."),
        _commands(analysis.study.name, metas, commits),
        appendix=True,
    )


def _records(analysis: Analysis, metas: list[dict[str, Any]]) -> list[str]:
    """Which records are used and which are not."""
    protocols = _distinct(trial.protocol for trial in analysis.trials)
    items = [
        f"Protocol {listed(protocols)}; {len(analysis.records)} records used, {len(analysis.trials)} "
        f"trials planned, {len(analysis.missing) or 'none'} of them without a record."
    ]
    if analysis.other_protocol:
        items.append(f"Left out: {counted(analysis.other_protocol, 'record')} made under another protocol.")
    if analysis.superseded:
        items.append(
            f"Left out: {counted(analysis.superseded, 'record')} of an earlier version of a recipe, or of another size "
            "than its budget comes to now."
        )
    if analysis.unasked:
        items.append(
            f"Left out: {counted(analysis.unasked, 'record')} of trials that this report was not asked for; the study "
            "has them, or another run of it did."
        )
    taken = Counter(str(meta["taken_from"]) for meta in metas if meta.get("taken_from"))
    if taken:
        studies = listed([f"{counted(n, 'record')} of {name}" for name, n in taken.items()])
        items.append(f"Taken from other studies, which have the same trials: {studies}.")
    return items


def _code(analysis: Analysis, metas: list[dict[str, Any]], commits: list[str]) -> list[str]:
    """The commits and versions of what made the records."""
    items = [f"Commit: {', '.join(commits) or 'not recorded'}."]
    if analysis.dirty:
        items.append(
            f"{analysis.dirty} of {len(metas)} records were made with uncommitted changes in the working tree."
        )
    elif any(meta.get("dirty") is None for meta in metas):
        items.append("Whether the working tree was clean is not known for all records.")
    outdated = [record for record in analysis.records if record.trial_id in analysis.outdated]
    if outdated:
        recipes = named(_distinct(record.trial.recipe.title for record in outdated))
        items.append(
            f"Made by other code of the method than is here now, so that run makes them again: "
            f"{counted(len(outdated), 'record')} of {recipes}."
        )
    plugins = _distinct(_plugin(code) for meta in metas for code in (meta.get("method") or {}).get("plugins", ()))
    items += [f"Code of others: {text}." for text in plugins]
    return items + [f"Versions: {text}." for text in _distinct(map(_versions, metas)) if text]


def _runs(metas: list[dict[str, Any]]) -> list[str]:
    """Where and when the trials ran, and the weights that they started from."""
    items = [f"Hardware: {'; '.join(_distinct(hardware_label(meta.get('hardware')) for meta in metas))}."]
    started = sorted(str(meta["started"]) for meta in metas if meta.get("started"))
    hours = sum(float(meta.get("seconds") or 0) for meta in metas) / 3600
    if started:
        items.append(
            f"Run from {started[0][:10]} to {started[-1][:10]} (UTC), {hours:.1f} hours in all trials together."
        )
    weights = _distinct(_weights(meta["weights"]) for meta in metas if meta.get("weights"))
    return items + [f"Weights: {source}." for source in weights]


def _commands(study: str, metas: list[dict[str, Any]], commits: list[str]) -> Code:
    """The commands that made the records, in the order in which they were given, and that of the report."""
    checkout = [f"git checkout {commits[0]}"] if len(commits) == 1 else []
    ordered = sorted(metas, key=lambda meta: str(meta.get("started", "")))
    commands = _distinct(meta["command"] for meta in ordered if meta.get("command"))
    return Code((*checkout, *(commands or [f"mosld-bench run {study}"]), f"mosld-bench report {study}"))


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _weights(weights: Mapping[str, str]) -> str:
    """Where weights came from; twelve digits of a digest tell files apart."""
    return ", ".join(f"SHA-256 {value[:12]}" if key == "sha256" else value for key, value in weights.items())


def _plugin(code: Mapping[str, Any]) -> str:
    """'bench_scale:ScaleMethod, bench-scale 0.1.0, SHA-256 0123456789ab'."""
    package = [f"{code['distribution']} {code['version']}"] if code.get("distribution") else []
    digest = [f"SHA-256 {code['sha256'][:12]}"] if code.get("sha256") else []
    return ", ".join([code["name"], *package, *digest])


def _versions(meta: Mapping[str, Any]) -> str:
    """'Python 3.12.3, peft 0.18.0, torch 2.9.1'."""
    python = [f"Python {meta['python']}"] if meta.get("python") else []
    packages = [f"{name} {version}" for name, version in sorted((meta.get("versions") or {}).items())]
    return ", ".join([*python, *packages])
