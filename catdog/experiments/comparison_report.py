"""The output formats of a comparison: a table for a terminal, Markdown, or JSON."""

import json
from dataclasses import asdict

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from catdog.experiments.compare import Comparison
from catdog.experiments.comparison_summary import sections, verdict


def write(comparison: Comparison, format: str, console: Console) -> None:
    """Print the comparison as `table`, `md` or `json`."""
    if format == "table":
        console.print(as_table(comparison))
    else:
        text = as_markdown(comparison) if format == "md" else as_json(comparison) + "\n"
        console.file.write(text)


def as_table(comparison: Comparison) -> RenderableType:
    """Return the comparison for a terminal."""
    parts: list[RenderableType] = [Text(verdict(comparison), style="bold")]
    for section in sections(comparison):
        parts += [Text(""), Text(section.title, style="bold"), *map(Text, section.lines)]
        if section.rows:
            table = Table()
            for name in section.header:
                table.add_column(Text(name))  # as Text, brackets in a name are not markup
            for row in section.rows:
                table.add_row(*map(Text, row))
            parts.append(table)
    return Group(*parts)


def as_markdown(comparison: Comparison) -> str:
    """Return the comparison as GitHub Markdown, for a comment on a pull request."""
    parts = [f"**{_escape(verdict(comparison))}**"]
    for section in sections(comparison):
        parts.append(f"### {section.title}")
        if section.lines:
            parts.append("\n".join(f"- {_escape(line)}" for line in section.lines))
        if section.rows:
            rows = [section.header, ["---"] * len(section.header), *section.rows]
            escaped = [[_escape(cell) for cell in row] for row in rows]
            parts.append("\n".join(f"| {' | '.join(row)} |" for row in escaped))
    return "\n\n".join(parts) + "\n"


def as_json(comparison: Comparison) -> str:
    """Return the comparison as JSON, with every photo whose outcome changed."""
    values = asdict(comparison)
    for setting, named in zip(comparison.settings, values["settings"], strict=True):
        named["runs"] = [
            {
                "name": run.name,
                "params": run.params,
                "metrics": run.metrics,
                "minutes": run.minutes,
            }
            for run in setting.runs
        ]
    for row in values["standings"]:
        row["name"] = comparison.settings[row["index"]].name
    return json.dumps({"verdict": verdict(comparison), **values}, indent=2, ensure_ascii=False)


def _escape(text: str) -> str:
    """Return text with Markdown's special characters escaped, except in code between backticks."""
    parts = text.replace("\n", " ").split("`")
    special = str.maketrans({mark: f"\\{mark}" for mark in "\\|*_~<>[]#"})
    if len(parts) % 2 == 0:  # an unpaired backtick starts no code
        return "\\`".join(part.translate(special) for part in parts)
    return "`".join(
        part.replace("|", "\\|") if odd % 2 else part.translate(special)
        for odd, part in enumerate(parts)
    )
