"""The table of an import: one row per class and per reason, and the total."""

import io
from pathlib import Path

from rich.console import Console

from catdog.ingest import report as reports
from catdog.ingest.report import ImportReport, report_table


def printed(report: ImportReport) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(report_table(report))
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def test_the_table_counts_photos_by_class_and_refused_files_by_reason(tmp_path: Path) -> None:
    refused = [("a.jpg", "not a photo"), ("b.jpg", "not a photo"), ("c.jpg", "empty file")]
    imported, splits = {"cat": 12_345, "dog": 2}, {"train": 12_000, "val": 347}
    text = printed(
        ImportReport(imported, refused, tmp_path / "why.csv", splits, ["lynx"], 7, [("a", "b")])
    )
    for row in [
        "12,345 │ cat",
        "2 │ dog",
        "0 │ lynx (no valid photo: not a class)",
        "12,000 │ in the split folder train",
        "7 │ with several frames or pages: the first is used",
        "1 │ renamed:",
        "2 │ refused: not a photo",
        "1 │ refused: empty file",
        "12,350 │ in total: 12,347 imported, 3 refused",
    ]:
        assert row in text
    assert "All refused files:" in text
    whole = ImportReport({"cat": 1, "dog": 1}, [], tmp_path / "q.csv", {}, [])
    assert "quarantine" not in printed(whole)
    assert "frames" not in printed(whole)


def test_the_table_sums_up_the_less_frequent_reasons(tmp_path: Path) -> None:
    refused = [(f"{number}.jpg", f"reason {number}") for number in range(15)]
    text = printed(ImportReport({"cat": 1, "dog": 1}, refused, tmp_path / "why.csv", {}, []))
    assert text.count("refused: reason") == reports.SHOWN_REASONS
    assert "3 │ refused for other reasons" in text


def test_class_names_are_not_interpreted_as_markup(tmp_path: Path) -> None:
    report = ImportReport({"cat [indoor]": 1, "cat [outdoor]": 2}, [], tmp_path, {}, ["[red]"])
    console = Console(file=io.StringIO(), width=80)
    console.print(report_table(report))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(name in shown for name in ("cat [indoor]", "cat [outdoor]", "[red]"))
