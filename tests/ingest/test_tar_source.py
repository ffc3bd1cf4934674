"""Tar archives: every entry is a member, and an archive with a damaged header is refused."""

import gzip
import io
import os
import random
import struct
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from catdog.errors import CatdogError
from catdog.ingest.sources import open_source
from catdog.ingest.tar_source import TarSource
from catdog.preparation.photo_limits import MAX_BYTES, TOO_LARGE
from tests.helpers.errors import error_line


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def write_tar(path: Path, number: int, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for index in range(number):
            archive.addfile(header(f"cat/{index}.jpg", 600), io.BytesIO(bytes([index]) * 600))
    return path


def reasons(path: Path) -> dict[str, str]:
    with closing(open_source(path)) as source:
        return {member.name: member.reason for member in source.members}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.FIFOTYPE, "named pipe"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (b"V", "unsupported type of entry"),
    ],
)
def test_links_pipes_and_devices_are_members_with_a_reason(
    tmp_path: Path, kind: bytes, reason: str
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = header("cat/1.jpg", kind=kind)
        info.linkname = "/etc/passwd"
        archive.addfile(info)
        archive.addfile(header("cat/2.jpg"))
    assert reasons(tmp_path / "a.tar") == {"cat/1.jpg": reason, "cat/2.jpg": ""}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_header_that_is_damaged_anywhere_loses_no_member(tmp_path: Path, mode: str) -> None:
    """tarfile ends silently at an invalid header, and GNU tar skips it."""
    whole = write_tar(tmp_path / "whole.tar", 4).read_bytes()
    flips = random.Random(0)
    for position in range(0, 512 * 3 * 4, 13):
        if position % 1536 >= 512:
            continue  # content, which has no checksum in a tar
        content = bytearray(whole)
        content[position] ^= 1 << flips.randrange(8)
        path = tmp_path / "a.tar"
        path.write_bytes(content)
        if mode == "w:gz":
            path.write_bytes(gzip.compress(content, 1))
        try:
            found = reasons(path)
        except CatdogError:
            continue
        assert len(found) == 4


def test_two_archives_in_one_file_are_refused(tmp_path: Path) -> None:
    """GNU tar and tarfile read the first only."""
    path = write_tar(tmp_path / "a.tar", 2)
    path.write_bytes(path.read_bytes() * 2)
    assert "data after the end, such as a second archive" in error_line(open_source, path)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_damaged_compressed_tar_is_refused(tmp_path: Path, mode: str) -> None:
    noise = random.Random(0).randbytes(1_000_000)  # bzip2 has a checksum per 900 kB
    path = tmp_path / "a.tar"
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.addfile(header("cat/1.jpg", len(noise)), io.BytesIO(noise))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert "a.tar: damaged archive (" in error_line(open_source, path)


def test_a_compressed_file_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"a photo" * 1000))
    assert "a.tar.gz: damaged archive (" in error_line(open_source, tmp_path / "a.tar.gz")


def test_a_member_that_states_a_large_size_is_refused_without_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as stream:  # a sparse file: the zeros are not on the disk
        size = (MAX_BYTES // 512 + 1) * 512
        stream.write(header("cat/1.jpg", size).tobuf())
        stream.seek(size, 1)
        stream.write(header("cat/2.jpg").tobuf() + bytes(1024))
    assert reasons(path) == {"cat/1.jpg": TOO_LARGE, "cat/2.jpg": ""}


def checked(block: bytearray) -> bytearray:
    """Return a header with the right checksum."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return block


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_attributes_of_a_member_that_do_not_fit_into_memory_are_not_read(
    tmp_path: Path, kind: bytes
) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as stream:
        stream.write(header("x", 3 << 30, kind).tobuf())
        stream.truncate(4 << 30)
    assert "damaged archive (invalid size in a header)" in error_line(open_source, path)


def test_attributes_of_all_members_are_limited(tmp_path: Path) -> None:
    """tarfile keeps them all in memory."""
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(header("cat/1.jpg"))
        stated = {f"x.{number}": "y" for number in range(200)}
        archive.fileobj.write(tarfile.TarInfo.create_pax_global_header(stated))
        archive.addfile(header("cat/2.jpg"))
    assert "too many global attributes" in error_line(open_source, tmp_path / "a.tar")


def test_attributes_before_attributes_without_end_are_refused(tmp_path: Path) -> None:
    """tarfile calls itself for each."""
    block = tarfile.TarInfo.create_pax_global_header({"x": "y"})
    (tmp_path / "a.tar").write_bytes(header("cat/1.jpg").tobuf() + block * 5000 + bytes(1024))
    assert "a.tar: damaged archive (" in error_line(open_source, tmp_path / "a.tar")


def test_a_negative_size_is_refused(tmp_path: Path) -> None:
    """CVE-2025-8194: tarfile would read the same header without end."""
    block = bytearray(header("cat/1.jpg").tobuf())
    block[124:136] = b"\xff" * 4 + struct.pack(">q", -512)
    (tmp_path / "a.tar").write_bytes(checked(block) + bytes(2048))
    assert "damaged archive (invalid size in a header)" in error_line(
        open_source, tmp_path / "a.tar"
    )


def test_a_negative_size_in_the_attributes_is_refused(tmp_path: Path) -> None:
    member = header("cat/1.jpg", 512)
    member.pax_headers = {"size": "-512"}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(bytes(512)))
        archive.addfile(header("cat/2.jpg", 512), io.BytesIO(b"2" * 512))
    assert "damaged archive" in error_line(open_source, tmp_path / "a.tar")


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    """Its size is not that in the archive. GNU tar writes it as a type or as attributes."""
    sparse = header("cat/1.jpg", kind=tarfile.GNUTYPE_SPARSE)
    (tmp_path / "a.tar").write_bytes(sparse.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    attributes = header("cat/1.jpg", 512)
    attributes.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    with tarfile.open(tmp_path / "b.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(attributes, io.BytesIO(b"0\n".ljust(512, b"\0")))
    for name in ("a.tar", "b.tar"):
        assert reasons(tmp_path / name) == {"cat/1.jpg": "sparse file"}


def test_an_archive_without_its_end_is_refused(tmp_path: Path) -> None:
    """It may have been cut between two members; GNU tar accepts it."""
    path = write_tar(tmp_path / "a.tar", 4)
    path.write_bytes(path.read_bytes()[: 2 * (512 + 1024)])
    assert "damaged archive (the end of the archive is missing)" in error_line(open_source, path)


def test_a_very_long_name_is_read(tmp_path: Path) -> None:
    name = "cat/" + "x" * 3000
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=format) as archive:
            archive.addfile(header(name))
        assert reasons(tmp_path / "a.tar") == {name: ""}


def test_a_refused_archive_is_closed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", 2)
    path.write_bytes(path.read_bytes()[:2048])
    with pytest.raises(tarfile.ReadError):  # pytest fails for a ResourceWarning
        TarSource(path, "tar", None)


def test_a_member_that_unpacks_to_much_more_than_the_archive_is_not_unpacked(
    tmp_path: Path,
) -> None:
    with tarfile.open(tmp_path / "a.tar.bz2", "w:bz2") as archive:
        archive.addfile(header("cat/1.jpg", 600), io.BytesIO(bytes(600)))
        archive.fileobj.write(header("cat/2.jpg", 1 << 34).tobuf())
    assert "unpacks to over 100 times its size" in error_line(open_source, tmp_path / "a.tar.bz2")


def test_the_map_of_a_sparse_file_is_limited(tmp_path: Path) -> None:
    block = bytearray(header("cat/1.jpg", kind=tarfile.GNUTYPE_SPARSE).tobuf())
    block[482] = 1  # a block with more of the map follows
    more = b"00000000001\0" * 42 + b"\1" + bytes(7)
    (tmp_path / "a.tar").write_bytes(checked(block) + more * 4096 + bytes(2048))
    assert "damaged archive (a header is too large)" in error_line(open_source, tmp_path / "a.tar")


def test_zeros_without_end_after_the_end_are_not_read(tmp_path: Path) -> None:
    os.truncate(write_tar(tmp_path / "a.tar", 2), 1 << 40)
    assert "bytes after the end" in error_line(open_source, tmp_path / "a.tar")
