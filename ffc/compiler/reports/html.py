"""A compile report as one HTML page that needs nothing else."""

from __future__ import annotations

from html import escape

from ffc.compiler.reports import content
from ffc.compiler.reports.report import Report

__all__ = ["STYLE", "to_html"]

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d0d7de, #3d444d); --quiet: light-dark(#59636e, #9198a1); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  background: light-dark(#fff, #0d1117); color: light-dark(#1f2328, #e6edf3); }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin-top: 1.5rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt, .note { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; } .wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } .t { text-align: left; } 
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
"""
"""How the pages of ffc look, light and dark."""

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body>
<h1>{title}</h1>
<dl>{facts}</dl>
<div class="wide"><table><thead><tr>{head}</tr></thead>
<tbody>
{body}</tbody></table></div>
<p class="note">{note}</p>
{remarks}</body>
</html>
"""


def to_html(report: Report) -> str:
    """Write a report as one HTML page that needs nothing else."""
    kinds = ["t" if index < content.TEXT_COLUMNS else "n" for index in range(len(content.COLUMNS))]
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in content.facts(report).items())
    head = "".join(f'<th class="{kind}">{escape(name)}</th>' for kind, name in zip(kinds, content.COLUMNS, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{kind}">{escape(cell)}</td>' for kind, cell in zip(kinds, row, strict=True))
        + "</tr>\n"
        for row in content.rows(report)
    )
    remarks = "".join(
        f"<h2>{escape(name)}</h2><ul>{''.join(f'<li>{escape(remark)}</li>' for remark in found)}</ul>\n"
        for name, found in content.remarks(report)
    )
    return _PAGE.format(
        style=STYLE,
        title=escape(content.title(report)),
        facts=facts,
        head=head,
        body=body,
        note=escape(content.counted_at(report)),
        remarks=remarks,
    )
