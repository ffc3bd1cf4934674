"""Archives and folders are read in the same way; damaged and unsupported ones are refused."""

import io
import random
import tarfile
import zipfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from catdog.errors import CatdogError, PhotoError
from catdog.ingest.archives import open_source


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def content_of(path: Path) -> dict[str, bytes]:
    """Return the content of all files of an archive or folder, by name."""
    with closing(open_source(path)) as source:
        return {name: source.read(name) for name in source.names()}


FILES = {"cat/1.jpg": b"one", "cat/deep/2.jpg": b"", "dog/3.jpg": b"three" * 1000}


def test_a_folder_a_zip_and_every_kind_of_tar_give_the_same_files(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert content_of(folder) == FILES
    assert content_of(write_zip(tmp_path / "a.zip", FILES)) == FILES
    for mode, name in [("w", "a.tar"), ("w:gz", "a.tar.gz"), ("w:bz2", "a.tbz"), ("w:xz", "a.xz")]:
        with tarfile.open(tmp_path / name, mode) as archive:  # type: ignore[call-overload]
            archive.add(folder, ".")
        unpacked = content_of(tmp_path / name)
        assert {key.removeprefix("./"): content for key, content in unpacked.items()} == FILES


def test_links_in_a_tar_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        photo = tarfile.TarInfo("cat/1.jpg")
        photo.size = 3
        archive.addfile(photo, io.BytesIO(b"one"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo(f"cat/{kind.decode()}.jpg")
            link.type, link.linkname = kind, "/etc/passwd"
            archive.addfile(link)
    assert content_of(path) == {"cat/1.jpg": b"one"}


def test_links_in_a_folder_are_listed_but_not_read(tmp_path: Path) -> None:
    (tmp_path / "in/cat").mkdir(parents=True)
    (tmp_path / "in/cat/1.jpg").write_bytes(b"one")
    (tmp_path / "secret.jpg").write_bytes(b"two")
    (tmp_path / "in/cat/2.jpg").symlink_to(tmp_path / "secret.jpg")
    with closing(open_source(tmp_path / "in")) as source:
        assert source.names() == ["cat/1.jpg", "cat/2.jpg"]
        assert source.read("cat/1.jpg") == b"one"
        with pytest.raises(PhotoError, match=r"^symbolic link$"):
            source.read("cat/2.jpg")


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/cat").symlink_to(tmp_path / "cats")
    message = r"in/cat: links to folders are not supported; replace the link with the folder"
    with (
        closing(open_source(tmp_path / "in")) as source,
        pytest.raises(CatdogError, match=message),
    ):
        source.names()


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", FILES)
    content = bytearray(path.read_bytes())
    # The lowest flag bit means "encrypted"; it is in the 9th byte of a central directory header.
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(
        CatdogError, match=r"a\.zip: encrypted archives are not supported; unpack it"
    ):
        content_of(path)


def test_a_zip_with_a_damaged_directory_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", FILES)
    path.write_bytes(path.read_bytes().replace(b"PK\1\2", b"XX\1\2"))
    with pytest.raises(CatdogError, match=r"a\.zip: damaged archive .*; download it again"):
        open_source(path)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_tar_is_refused(tmp_path: Path, mode: str, damage: str) -> None:
    path = tmp_path / "a.tar"
    noise = random.Random(0).randbytes(1_000_000)  # bzip2 has a checksum per 900 kB
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in ("cat/1.jpg", "dog/1.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(noise)
            archive.addfile(info, io.BytesIO(noise))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if damage == "cut":
        del content[middle:]
    else:
        content[middle : middle + 8] = bytes(b ^ 0xFF for b in content[middle : middle + 8])
    path.write_bytes(content)
    with pytest.raises(CatdogError, match=r"a\.tar: damaged archive .*; download it again"):
        open_source(path)


def test_a_file_that_is_not_an_archive_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"no archive at all" * 100, b"PK\3\4 cut short"):
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(CatdogError, match=r"a\.zip: neither a zip nor a tar archive; .*"):
            open_source(tmp_path / "a.zip")


def test_a_missing_archive_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CatdogError, match=r"gone\.zip: no such file"):
        open_source(tmp_path / "gone.zip")
