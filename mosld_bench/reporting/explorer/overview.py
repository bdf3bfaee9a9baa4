"""The page over all studies of a workspace, of what each report leaves beside its page: ``overview.json``.

Making it reads neither records nor reports of the other studies, so that every report makes it anew. It stands in the
folder of all reports, which is told by its name: a report that is written to another place has none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mosld_bench.errors import BenchError
from mosld_bench.format import counted, one_line
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.compose import days, draft, latest_start
from mosld_bench.reporting.explorer import PAGE
from mosld_bench.reporting.explorer.markup import escaped, head
from mosld_bench.reporting.labels import short_label
from mosld_bench.reporting.sections.answers.blocks import main_block
from mosld_bench.scratch import replace_file
from mosld_bench.spec.plain_file import read_kept
from mosld_bench.spec.trial import Condition
from mosld_bench.spec.yaml_file import read_including

OVERVIEW = "overview.json"

_REPORTS = "reports"  # the folder of all reports of a workspace

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; padding-bottom: .5rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #8888; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
small { display: block; opacity: .8; }
.scroll { overflow-x: auto; }
"""


@dataclass(frozen=True)
class Best:
    """The best row of a domain in the block that a report opens with: '44.5 %', and what is said of it."""

    domain: str
    row: str
    score: str
    said: str


@dataclass(frozen=True)
class Overview:
    """What the page over all studies says of one; ``date`` is that of its last trial, empty where none is known."""

    study: str
    question: str
    rows: int
    planned: int
    finished: int
    failed: int
    date: str
    draft: bool
    block: str
    best: tuple[Best, ...]

    @classmethod
    def of(cls, analysis: Analysis) -> Overview:
        """That of an analysis."""
        condition = main_block(analysis)
        return cls(
            study=analysis.study.name,
            question=one_line(analysis.study.question),
            rows=len(analysis.rows),
            planned=len(analysis.trials),
            finished=len(analysis.records),
            failed=len(analysis.failures),
            date=latest_start(analysis).date().isoformat() if days(analysis) else "",
            draft=draft(analysis) is not None,
            block=short_label(condition) if condition else "",
            best=tuple(_best(analysis, condition)) if condition else (),
        )

    @classmethod
    def read(cls, path: Path) -> Overview | None:
        """That in a file; None where there is none, or it holds something else."""
        return read_kept(cls, path)


def _best(analysis: Analysis, condition: Condition) -> Iterator[Best]:
    """The best row of the block in every domain with a mean, and from how many others a test does not tell it."""
    for domain in analysis.averaged():
        row = analysis.best(condition, domain)
        if row is None:
            continue
        scale, tied = analysis.scale(domain), len(analysis.tied(condition, domain))
        said = "told apart from all others" if analysis.leads(condition, domain) else ""
        said = f"not told apart from {counted(tied, 'other')}" if tied else said
        yield Best(domain.label, row.recipe.title, f"{scale.text(row.mean_sd(domain)[0])}{scale.sign}", said)


def write_overview(analysis: Analysis, folder: Path) -> Path:
    """Write ``overview.json`` into ``folder``; its path."""
    path = folder / OVERVIEW
    text = json.dumps(asdict(Overview.of(analysis)), ensure_ascii=False, indent=1)
    replace_file(path, f"{text}\n".encode("utf-8", "replace"))
    return path


def belongs_to_an_index(study: str, folder: Path) -> bool:
    """Whether ``folder`` is that of a study among all reports of a workspace, and not one that --to has named."""
    whole = folder.resolve()
    return (whole.parent.name, whole.name) == (_REPORTS, study)


def write_index(reports: Path) -> Path:
    """Write ``index.html`` into the folder of all reports, a row a study that has a report in it; its path."""
    lines = [_line(folder) for folder in sorted(reports.iterdir()) if _has_report(folder)]
    heads = ("Study", "Question", "Rows", "Trials", "Last trial", "Best of its block", "Open")
    columns = "".join(f'<th scope="col">{title}</th>' for title in heads)
    body = (
        f'<h1>Studies</h1>\n<div class="scroll" tabindex="0" role="region" aria-label="Studies">\n<table>\n'
        f"<caption>{counted(len(lines), 'report').capitalize()} of this workspace.</caption>\n"
        f"<thead><tr>{columns}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>\n</table>\n</div>"
    )
    path = reports / PAGE
    text = f"{head('Studies', _STYLE)}\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    replace_file(path, text.encode("utf-8", "replace"))
    return path


def _has_report(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).is_file() for name in (PAGE, "report.pdf"))


def _line(folder: Path) -> str:
    """A study's row; of a report that was made elsewhere, or before there were pages, its question alone."""
    found = Overview.read(folder / OVERVIEW)
    name = folder.name
    links = [
        f'<a href="{_address(name, file)}" aria-label="{title} of {escaped(name)}">{title}</a>'
        for file, title in ((PAGE, "page"), ("report.pdf", "PDF"))
        if (folder / file).is_file()
    ]
    if found is None:
        told: list[str] = [escaped(_question(folder)), *[""] * 4]
    else:
        failed = f"<small>{found.failed:,} failed</small>" if found.failed else ""
        trials = f"{found.finished:,} of {found.planned:,}{failed}"
        date = f"{escaped(found.date)}{'<small>draft</small>' if found.draft else ''}"
        best = "<br>".join(map(_best_text, found.best))
        block = f"<small>{escaped(found.block)}</small>" if found.best else ""
        told = [escaped(found.question), f"{found.rows:,}", trials, date, f"{best}{block}"]
    question, rows, trials, date, best = told
    return (
        f'<tr><th scope="row">{escaped(name)}</th><td>{question}</td><td class="number">{rows}</td>'
        f'<td class="number">{trials}</td><td>{date}</td><td>{best}</td><td>{" ".join(links)}</td></tr>'
    )


def _best_text(best: Best) -> str:
    said = f" ({escaped(best.said)})" if best.said else ""
    return f"{escaped(best.domain)}: {escaped(best.row)}, {escaped(best.score)}{said}"


def _question(folder: Path) -> str:
    """That of the study's file; empty where there is none that can be read."""
    try:
        content: dict[str, Any] = read_including(folder / "study.yaml", ())
    except BenchError:
        return ""
    return one_line(str(content.get("question", "")))


def _address(*parts: str) -> str:
    return "/".join(quote(part) for part in parts)
