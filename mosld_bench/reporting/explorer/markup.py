"""Text in HTML, and the head that every page has."""

from __future__ import annotations

import base64
import hashlib
import html


def escaped(text: str) -> str:
    """``text`` as HTML shows it, in an element or between quotes; a lone surrogate becomes a question mark."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"), quote=True)


def head(title: str, style: str, *, script: str = "") -> str:
    """All before the body of a page.

    Its policy lets the inline ``script`` run, and files beside the page, and nothing else; without one, no script.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"'sha256-{digest}' 'self' file:" if script else "'none'"
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escaped(title)}</title>\n<style>{style}</style>\n</head>"
    )
