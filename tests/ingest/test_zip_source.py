"""Zip archives: every entry is a member, and what zipfile reads wrongly is refused."""

import random
import stat
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from catdog.errors import CatdogError
from catdog.ingest import zip_source
from catdog.ingest.members import Member
from catdog.ingest.zip_source import ZipSource
from catdog.preparation.photo_limits import MAX_BYTES, TOO_LARGE
from tests.helpers import archives

FILES = {"cat/1.jpg": b"one", "dog/3.jpg": b"three" * 1000}
DIRECTORY_ENTRY = b"PK\1\2"


def write_zip(path: Path, files: dict[str, bytes] = FILES) -> Path:
    return archives.write_zip(path, files)


def members(path: Path) -> list[Member]:
    with closing(ZipSource(path, None)) as source:
        return source.members


def patch_directory(path: Path, offset: int, value: bytes) -> None:
    """Overwrite bytes of the first entry of the directory."""
    content = bytearray(path.read_bytes())
    start = content.index(DIRECTORY_ENTRY) + offset
    content[start : start + len(value)] = value
    path.write_bytes(content)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip")
    patch_directory(path, 8, b"\1")
    with pytest.raises(CatdogError, match=r"encrypted archives .* \(1 of 2 .*; unpack it and pass"):
        members(path)


@pytest.mark.parametrize(
    ("method", "name"), [(9, "Deflate64"), (12, "bzip2"), (93, "Zstandard"), (77, "method 77")]
)
def test_an_unsupported_compression_is_refused_by_name(
    tmp_path: Path, method: int, name: str
) -> None:
    path = write_zip(tmp_path / "a.zip")
    patch_directory(path, 10, struct.pack("<H", method))
    with pytest.raises(CatdogError, match=rf"compression {name} of 'cat/1\.jpg'; unpack it with"):
        members(path)


def test_one_part_of_several_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip")
    content = path.read_bytes()
    path.write_bytes(content[:-18] + b"\2\0" + content[-16:])
    with pytest.raises(CatdogError, match=r"one of several parts .*; unpack all parts together"):
        members(path)


def test_links_and_devices_are_members_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    kinds = {
        "link": (stat.S_IFLNK, "symbolic link"),
        "pipe": (stat.S_IFIFO, "named pipe"),
        "device": (stat.S_IFBLK, "device"),
        "photo": (stat.S_IFREG, ""),
        "unknown": (0, ""),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, (mode, _) in kinds.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode | 0o644) << 16
            archive.writestr(info, "../../etc/passwd")
    assert {m.name: m.reason for m in members(path)} == {k: why for k, (_, why) in kinds.items()}


def test_a_zip_whose_directory_omits_files_is_refused(tmp_path: Path) -> None:
    """As a first archive before a second, and as a file between two others."""
    one, two = (write_zip(tmp_path / name) for name in ("1.zip", "2.zip"))
    both = tmp_path / "both.zip"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    with pytest.raises(zipfile.BadZipFile, match="the directory does not list all files"):
        members(both)
    both.write_bytes(one.read_bytes() + two.read_bytes()[:-30])  # the second has no directory
    with pytest.raises(zipfile.BadZipFile, match="files after the directory"):
        members(both)
    with zipfile.ZipFile(one) as archive:
        middle = archive.infolist()[1].header_offset
    content = bytearray(one.read_bytes())
    hidden = two.read_bytes()[: two.read_bytes().index(DIRECTORY_ENTRY)]
    directory = content.index(DIRECTORY_ENTRY)
    second = content.index(DIRECTORY_ENTRY, directory + 1)
    struct.pack_into("<L", content, second + 42, middle + len(hidden))
    struct.pack_into("<L", content, len(content) - 6, directory + len(hidden))
    one.write_bytes(content[:middle] + hidden + content[middle:])
    assert zipfile.ZipFile(one).testzip() is None
    with pytest.raises(zipfile.BadZipFile, match="the directory does not list all files"):
        members(one)


def test_a_directory_with_another_number_of_files_than_it_states_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    struct.pack_into("<HH", content, len(content) - 14, 3, 3)
    path.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="the number of files differs"):
        members(path)


def test_a_nested_zip_without_compression_is_a_member(tmp_path: Path) -> None:
    """Its headers are not those of files of the outer one."""
    inner = write_zip(tmp_path / "inner.zip").read_bytes()
    path = write_zip(tmp_path / "a.zip", {"inner.zip": inner, "cat/1.jpg": b"one"})
    assert [member.name for member in members(path)] == ["inner.zip", "cat/1.jpg"]


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    """https://www.bamsoftware.com/hacks/zipbomb/: the same data in many members."""
    content = write_zip(tmp_path / "a.zip", {"cat/1.jpg": bytes(1000)}).read_bytes()
    start, end = content.index(DIRECTORY_ENTRY), len(content) - 22
    entry = content[start:end]
    counts = struct.pack("<HHL", 2, 2, 2 * len(entry))
    path = tmp_path / "b.zip"
    path.write_bytes(content[:end] + entry + content[end : end + 8] + counts + content[end + 16 :])
    assert [m.reason for m in members(path)] == ["overlaps with another file of the archive", ""]


def test_a_member_that_states_a_large_size_is_refused_without_reading(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip")
    patch_directory(path, 24, struct.pack("<L", MAX_BYTES + 1))
    assert [member.reason for member in members(path)] == [TOO_LARGE, ""]


def test_a_name_in_the_unicode_extra_field_is_used(tmp_path: Path) -> None:
    raw, name = "猫.jpg".encode("cp932"), "猫.jpg"
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("x" * len(raw))
        field = b"\1" + struct.pack("<L", zlib.crc32(raw)) + name.encode()
        info.extra = struct.pack("<HH", 0x7075, len(field)) + field
        archive.writestr(info, b"one")
    path.write_bytes(path.read_bytes().replace(b"x" * len(raw), raw))
    assert [member.name for member in members(path)] == [name]


def test_a_member_is_unpacked_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.jpg", bytes(100_000_000))
    with closing(ZipSource(path, None)) as source:
        tracemalloc.start()
        with closing(source.open(source.members[0])) as stream:
            assert stream.read(1000) == bytes(1000)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_directory_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path / "a.zip")
    monkeypatch.setattr(zip_source, "MAX_DIRECTORY_BYTES", 100)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(CatdogError, match=r"a\.zip: more than 500,000 files"):
        members(path)


def test_a_change_of_any_byte_of_the_directory_loses_no_file(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {f"cat/{n}.jpg": b"one" for n in range(5)})
    whole = path.read_bytes()
    flips = random.Random(0)
    for position in range(whole.index(DIRECTORY_ENTRY), len(whole)):
        content = bytearray(whole)
        content[position] ^= 1 << flips.randrange(8)
        path.write_bytes(content)
        try:
            with warnings.catch_warnings(action="ignore"):
                found = members(path)
        except Exception:  # `open_source` makes it a CatdogError
            continue
        assert len(found) == 5
