"""Each file of a folder and each entry of an archive is imported, or listed with a reason."""

import csv
import os
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catdog.errors import CatdogError
from catdog.ingest import entries, photo_import
from catdog.ingest.photo_import import import_photos
from catdog.preparation.class_folders import list_photos
from catdog.preparation.photo_limits import MAX_BYTES
from tests.helpers.archives import jpeg, write_tar, write_zip

Tree = list[tuple[str, bytes]]
SOURCES = ["folder", "zip", "deflated zip", "tar", "tar.gz"]


PHOTOS = [jpeg(seed) for seed in range(40)]


def build(kind: str, root: Path, tree: Tree) -> Path:
    """Write a tree as a folder or an archive; return its path."""
    path = root / f"in.{kind}"
    if kind == "folder":
        for name, content in tree:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return path
    if kind.endswith("zip"):
        method = zipfile.ZIP_DEFLATED if kind == "deflated zip" else zipfile.ZIP_STORED
        return write_zip(path, tree, method)
    return write_tar(path, tree, "w:gz" if kind == "tar.gz" else "w")


def imported(root: Path) -> Counter[bytes]:
    return Counter(path.read_bytes() for path in (root / "raw").rglob("*") if path.is_file())


def listed(root: Path) -> list[list[str]]:
    with (root / "quarantine.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))[1:]


def run(source: Path, root: Path) -> tuple[int, int]:
    """Import; return the numbers of imported and listed files, which agree in all places."""
    report = import_photos(
        source, root / "raw", replace=True, quarantine=root / "quarantine.csv", workers=1
    )
    photos = sum(imported(root).values())
    assert photos == sum(report.imported.values()) == len(list_photos(root / "raw"))
    found = Counter(photo.class_name for photo in list_photos(root / "raw"))
    assert dict(sorted(found.items())) == report.imported
    assert listed(root) == [list(row) for row in report.refused]
    assert all(reason for _, reason in report.refused)
    return photos, len(report.refused)


VALID: Tree = [
    ("in/cat/1.jpg", PHOTOS[0]),
    ("in/cat/2023/1.jpg", PHOTOS[1]),
    ("in/cat/no ending", PHOTOS[2]),
    ("in/cat/A.JPG", PHOTOS[3]),
    ("in/cat/a.jpg", PHOTOS[4]),
    ("in/dog/photo.txt", PHOTOS[5]),
    ("in/dog/" + "x" * 250 + "é", PHOTOS[6]),
    ("in/dog/cat.1.jpg", PHOTOS[7]),
]
REFUSED: Tree = [
    ("in/cat/empty.jpg", b""),
    ("in/cat/cut.jpg", PHOTOS[8][:-100]),
    ("in/cat/text.jpg", b"no pixels"),
    ("in/cat/nested.zip", b"PK\3\4" + bytes(100)),
    ("in/cat/.hidden.jpg", PHOTOS[9]),
    ("in/.git/1.jpg", PHOTOS[10]),
    ("in/dog/Thumbs.db", PHOTOS[11]),
    ("in/dog/a\tb.jpg", PHOTOS[12]),
    ("in/dog/a\nb.jpg", PHOTOS[13]),
    ("in/no class.jpg", PHOTOS[14]),
    ("in/lynx/only damaged.jpg", b"no pixels"),
    ("__MACOSX/in/cat/1.jpg", PHOTOS[15]),
]
# Archives may have names that no folder has.
ONLY_IN_ARCHIVES: Tree = [
    ("../in/cat/1.jpg", PHOTOS[16]),
    ("/in/cat/1.jpg", PHOTOS[17]),
    ("C:\\in\\cat\\1.jpg", PHOTOS[18]),
    ("in/cat/../../../1.jpg", PHOTOS[19]),
    ("in/" + "x" * 300 + "/1.jpg", PHOTOS[20]),
]
EQUAL_NAMES: Tree = [("in/cat/1.jpg", PHOTOS[21]), ("in/dog/" + "x" * 400, PHOTOS[22])]


@pytest.mark.parametrize("kind", SOURCES)
def test_all_faults_together_lose_no_file(tmp_path: Path, kind: str) -> None:
    refused = REFUSED if kind == "folder" else REFUSED + ONLY_IN_ARCHIVES
    valid = VALID if kind == "folder" else VALID + EQUAL_NAMES
    source = build(kind, tmp_path, [*valid, *refused])
    assert run(source, tmp_path) == (len(valid), len(refused))
    assert imported(tmp_path) == Counter(content for _, content in valid)


def test_the_faults_of_a_folder_lose_no_file(tmp_path: Path) -> None:
    """Links, pipes, large files: what only a folder has."""
    folder = build("folder", tmp_path, VALID)
    cat = folder / "in/cat"
    (tmp_path / "blob").write_bytes(PHOTOS[30])
    (cat / "link.jpg").symlink_to(tmp_path / "blob")
    (cat / "hard.jpg").hardlink_to(cat / "1.jpg")
    (cat / "broken.jpg").symlink_to("gone")
    (cat / "loop").symlink_to("..")
    os.mkfifo(cat / "pipe.jpg")
    with (cat / "large.jpg").open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    assert run(folder, tmp_path) == (len(VALID) + 2, 4)


def test_a_file_that_vanishes_while_a_folder_is_read_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build("folder", tmp_path, VALID)

    def remove_one(*arguments: Any) -> Any:
        (folder / "in/cat/1.jpg").unlink()
        return entries.classify(*arguments)

    monkeypatch.setattr(photo_import, "classify", remove_one)
    assert run(folder, tmp_path) == (len(VALID) - 1, 1)
    assert listed(tmp_path) == [["in/cat/1.jpg", "unreadable: No such file or directory"]]


def test_the_faults_of_a_tar_lose_no_file(tmp_path: Path) -> None:
    source = build("tar", tmp_path, VALID)
    kinds = [
        *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE),
        tarfile.GNUTYPE_SPARSE,
    ]
    with tarfile.open(source, "a") as archive:
        for kind in kinds:
            info = tarfile.TarInfo(f"in/cat/{kind.decode()}.jpg")
            info.type, info.linkname = kind, "in/cat/1.jpg"
            archive.addfile(info)
    assert run(source, tmp_path) == (len(VALID), len(kinds))


def test_a_damaged_member_of_a_zip_is_listed(tmp_path: Path) -> None:
    source = build("zip", tmp_path, VALID)
    content = source.read_bytes()
    damaged = content.replace(PHOTOS[1], bytes(len(PHOTOS[1])))  # wrong checksum
    start = damaged.index(PHOTOS[2]) - len("in/cat/no ending") - 30
    damaged = damaged[:start] + b"XX" + damaged[start + 2 :]  # not the header of a file
    source.write_bytes(damaged)
    assert run(source, tmp_path) == (len(VALID) - 2, 2)
    assert [reason.split(":")[0] for _, reason in listed(tmp_path)] == [
        "damaged in the archive"
    ] * 2


def test_renamed_photos_are_listed_with_the_file_they_come_from(tmp_path: Path) -> None:
    names = ["cat/2023/1.jpg", "cat/2024/1.jpg", "cat/2025/1.JPG", "dog/e\u0301.jpg", "dog/2.jpg"]
    source = build("zip", tmp_path, [*zip(names, PHOTOS, strict=False), ("dog/1.jpg", b"refused")])
    run(source, tmp_path)
    with (tmp_path / "renamed.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["file", "photo"]
    assert rows == [["cat/2024/1.jpg", "cat/1_2.jpg"], ["cat/2025/1.JPG", "cat/1_3.JPG"]]
    for name, path in rows:
        assert (tmp_path / "raw" / path).read_bytes() == PHOTOS[names.index(name)]
    run(build("tar", tmp_path, VALID[:1] + VALID[-1:]), tmp_path)
    assert (tmp_path / "renamed.csv").read_text() == "file,photo\n"


NAMES = st.sampled_from(["cat", "dog", "2023", "train", "test", "Cat", ".git", " x", "1.jpg"])
TREES = st.lists(
    st.tuples(
        st.lists(NAMES, min_size=1, max_size=4).map("/".join),
        st.sampled_from([*PHOTOS[:4], b"", b"no pixels", PHOTOS[0][:-50]]),
    ),
    min_size=4,
    max_size=10,
)


@settings(max_examples=40, deadline=None)
@given(TREES)
def test_any_tree_is_accounted_for_whatever_its_names(tree: Tree) -> None:
    base = [("cat/base.jpg", PHOTOS[30]), ("dog/base.jpg", PHOTOS[31])]
    results = set()
    for kind in ("zip", "tar"):
        with TemporaryDirectory() as folder:
            root = Path(folder)
            try:
                photos, refused = run(build(kind, root, [*base, *tree]), root)
            except CatdogError as error:
                assert not (root / "raw").exists()
                results.add(str(error).replace(f"in.{kind}", "").replace(folder, ""))
                continue
            assert photos + refused == len(tree) + 2
            results.add(f"{photos} {refused}")
    assert len(results) == 1
