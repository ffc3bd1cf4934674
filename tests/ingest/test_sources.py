"""Archives and folders are read in the same way; what cannot be read to its end is refused."""

import io
import os
import random
import tarfile
import tracemalloc
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from catdog.ingest import tar_source, zip_source
from catdog.ingest.sources import open_source
from tests.helpers.archives import write_tar, write_zip
from tests.helpers.errors import error_line

FILES = {"cat/1.jpg": b"one", "cat/deep/2.jpg": b"", "dog/3.jpg": b"three" * 1000}
TAR_MODES = {"a.tar": "w", "a.tar.gz": "w:gz", "a.tbz": "w:bz2", "a.xz": "w:xz"}


def content_of(path: Path, encoding: str | None = None) -> list[tuple[str, bytes | str]]:
    """Return name and content of all members, or the reason why a member is not read."""
    with closing(open_source(path, encoding)) as source:
        found: list[tuple[str, bytes | str]] = []
        for member in source.members:
            if member.reason:
                found.append((member.name, member.reason))
                continue
            with closing(source.open(member)) as stream:
                found.append((member.name, stream.read()))
        return found


def test_a_folder_a_zip_and_every_kind_of_tar_give_the_same_files(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    expected = list(FILES.items())
    assert content_of(folder) == expected
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert content_of(write_zip(tmp_path / "a.zip", FILES, method)) == expected
    for name, mode in TAR_MODES.items():
        assert content_of(write_tar(tmp_path / name, FILES, mode)) == expected


def test_the_kind_of_an_archive_is_read_from_its_content(tmp_path: Path) -> None:
    """A small zip at the end of a tar makes zipfile take the tar for a zip."""
    inner = write_zip(tmp_path / "inner.zip", {"x": b"y"}).read_bytes()
    path = write_tar(tmp_path / "a.zip", FILES | {"inner.zip": inner})
    assert [name for name, _ in content_of(path)] == [*FILES, "inner.zip"]


def test_entries_with_equal_names_are_different_files(tmp_path: Path) -> None:
    photos = [b"one", b"two", b"three"]
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped,
        tarfile.open(tmp_path / "a.tar", "w") as tarred,
    ):
        for content in photos:
            info = tarfile.TarInfo("cat/1.jpg")
            info.size = len(content)
            tarred.addfile(info, io.BytesIO(content))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("warnings.warn", lambda *_, **__: None)
                zipped.writestr("cat/1.jpg", content)
    for name in ("a.zip", "a.tar"):
        assert content_of(tmp_path / name) == [("cat/1.jpg", content) for content in photos]


def test_empty_folders_are_known_and_are_no_members(tmp_path: Path) -> None:
    (tmp_path / "in/cat/old").mkdir(parents=True)
    (tmp_path / "in/dog").mkdir()
    (tmp_path / "in/dog/1.jpg").touch()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted((tmp_path / "in").rglob("*")):
            archive.write(path, path.relative_to(tmp_path / "in"))
    with tarfile.open(tmp_path / "a.tar", "w") as tarred:
        tarred.add(tmp_path / "in", "")
    for name in ("in", "a.zip", "a.tar"):
        with closing(open_source(tmp_path / name)) as source:
            assert [member.name for member in source.members] == ["dog/1.jpg"]
            assert {"cat", "cat/old"} == set(source.empty_folders)


@pytest.mark.parametrize(
    ("head", "advice"),
    [
        (b"7z\xbc\xaf\x27\x1c", "7z archives are not supported; unpack it with 7-Zip and pass"),
        (b"Rar!\x1a\x07\x01\0", "rar archives are not supported; unpack it with unrar and pass"),
        (b"\x28\xb5\x2f\xfd", "tar.zst archives are not supported; unpack it with `tar --zstd"),
    ],
)
def test_archives_of_other_kinds_are_refused_with_advice(
    tmp_path: Path, head: bytes, advice: str
) -> None:
    (tmp_path / "a.zip").write_bytes(head + bytes(1000))
    assert advice in error_line(open_source, tmp_path / "a.zip")


def test_a_file_that_is_not_an_archive_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"no archive at all" * 100):
        (tmp_path / "a.zip").write_bytes(content)
        message = error_line(open_source, tmp_path / "a.zip")
        assert "a.zip: neither a zip nor a tar archive" in message


def test_a_missing_archive_is_reported(tmp_path: Path) -> None:
    assert "gone.zip: no such file" in error_line(open_source, tmp_path / "gone.zip")


@pytest.mark.parametrize("kind", ["zip", *TAR_MODES])
def test_an_archive_that_is_cut_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    """Also between two members, where tarfile and GNU tar see no error."""
    noise = random.Random(0)
    files = {f"cat/{index}.jpg": noise.randbytes(600) for index in range(8)}
    path = tmp_path / "a"
    whole = (
        write_zip(path, files) if kind == "zip" else write_tar(path, files, TAR_MODES[kind])
    ).read_bytes()
    end = 8 * (512 + 1024) if kind == "a.tar" else len(whole)  # in a tar, zeros follow
    for size in [*range(0, end - 20, 97), *range(0, end - 20, 512)]:
        path.write_bytes(whole[:size])
        error_line(open_source, path)


@pytest.mark.parametrize(("limit", "value"), [("MAX_MEMBERS", 2), ("MAX_DIRECTORY_BYTES", 20)])
def test_an_archive_with_too_many_files_or_too_long_names_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    for module in (zip_source, tar_source):
        monkeypatch.setattr(module, limit, value)
    paths = [write_zip(tmp_path / "a.zip", FILES), write_tar(tmp_path / "a.tar", FILES)]
    for path in paths:
        message = error_line(open_source, path)
        assert f"{path}: more than 500,000 files, or more than 100 MB of file names" in message


def test_a_name_without_a_stated_encoding_is_decoded_with_the_given_one(tmp_path: Path) -> None:
    name = "狗/1.jpg"
    (tmp_path / "in" / os.fsdecode("狗".encode("gbk"))).mkdir(parents=True)
    (tmp_path / "in" / os.fsdecode(name.encode("gbk"))).write_bytes(b"one")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("XX/1.jpg", b"one")
    zipped = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(zipped.replace(b"XX/", "狗/".encode("gbk")))
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="gbk") as tarred:
        info = tarfile.TarInfo(name)
        info.size = 3
        tarred.addfile(info, io.BytesIO(b"one"))
    for source in ("in", "a.zip", "a.tar"):
        assert content_of(tmp_path / source, "gbk") == [(name, b"one")]
        assert "--encoding gbk (狗)" in error_line(open_source, tmp_path / source)


def test_a_path_of_many_folders_takes_little_memory(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"cat/" + "a/" * 30_000 + "1.jpg": b"1", "dog/": b""})
    tracemalloc.start()
    try:
        with closing(open_source(path)) as source:
            assert source.empty_folders == ["dog"]
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
