"""The numbers of an import, as a table."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table
from rich.text import Text

SHOWN_REASONS = 12


@dataclass(frozen=True)
class ImportReport:
    """The imported and the refused files: together all files of the source."""

    imported: dict[str, int]
    """number of photos by class, sorted by class"""
    refused: list[tuple[str, str]]
    """file name and reason, sorted"""
    quarantine: Path
    """CSV file that lists the refused files"""
    splits: dict[str, int]
    """number of photos by given split; empty if the source has no split folders"""
    empty_classes: list[str]
    """class folders without any imported photo, sorted"""
    animated: int = 0
    """number of imported photos with several frames or pages, of which the first is used"""
    renamed: list[tuple[str, str]] = field(default_factory=list)
    """file name in the source and path in data/raw of the photos with another name there"""


def renamed_list(quarantine: Path) -> Path:
    """Return the CSV file (file, photo) that lists the renamed photos."""
    return quarantine.with_name("renamed.csv")


def report_table(report: ImportReport) -> Table:
    """Return a table of the imported photos by class and the refused files by reason."""
    table = Table("files", "class or reason", title="Imported photos")
    for name, photos in report.imported.items():
        table.add_row(f"{photos:,}", Text(name))  # Text, because "[indoor]" is not markup
    for name in report.empty_classes:
        table.add_row("0", Text(f"{name} (no valid photo: not a class)"))
    if report.splits:
        table.add_section()
        for split, photos in report.splits.items():
            table.add_row(f"{photos:,}", f"in the split folder {split}")
    if report.animated:
        table.add_section()
        table.add_row(f"{report.animated:,}", "with several frames or pages: the first is used")
    if report.renamed:
        table.add_section()
        table.add_row(f"{len(report.renamed):,}", f"renamed: {renamed_list(report.quarantine)}")
    table.add_section()
    reasons = Counter(reason for _, reason in report.refused)
    for reason, files in reasons.most_common(SHOWN_REASONS):
        table.add_row(f"{files:,}", Text(f"refused: {reason}"))
    if rest := reasons.total() - sum(n for _, n in reasons.most_common(SHOWN_REASONS)):
        table.add_row(f"{rest:,}", "refused for other reasons")
    imported, refused = sum(report.imported.values()), len(report.refused)
    table.add_section()
    total = f"in total: {imported:,} imported, {refused:,} refused"
    table.add_row(f"{imported + refused:,}", total)
    table.caption = f"All refused files: {report.quarantine}" if report.refused else None
    return table
