"""Write files of image formats byte by byte, in variants that Pillow does not write."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


def png_chunk(kind: bytes, data: bytes, *, damaged: bool = False) -> bytes:
    """Return a chunk of a PNG file; `damaged` gives it a wrong checksum."""
    checksum = zlib.crc32(kind + data) ^ damaged
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(
    rows: list[bytes], width: int, bits: int, colour: int, before: bytes = b"", after: bytes = b""
) -> bytes:
    """Return a PNG file of packed rows, with chunks before and after the pixels.

    Colour types: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha.
    """
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", pixels) + after
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


SHORT, LONG = 3, 4


def tiff(
    pixels: bytes,
    width: int,
    height: int,
    bits: tuple[int, ...],
    photometric: int,
    more: dict[int, tuple[int, list[int]]] | None = None,
    order: str = "<",
) -> bytes:
    """Return an uncompressed TIFF of one strip; `more` has further tags: (type, values).

    Photometric: 0 white is zero, 1 black is zero, 2 RGB, 8 CIELAB.
    """
    tags = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, list(bits)),
        259: (SHORT, [1]),
        262: (SHORT, [photometric]),
        273: (LONG, [8]),
        277: (SHORT, [len(bits)]),
        278: (LONG, [height]),
        279: (LONG, [len(pixels)]),
        **(more or {}),
    }
    data = pixels + b"\0" * (len(pixels) % 2)
    entries = b""
    for tag, (kind, values) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(values)}{'HI'[kind - SHORT]}", *values)
        if len(value) > 4:
            data, value = data + value, struct.pack(f"{order}I", 8 + len(data))
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return header + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


# Chromaticities of the primaries, adapted to D50, in XYZ (columns red, green, blue)
DISPLAY_P3 = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
SRGB = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def icc_profile(space: bytes, pcs: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return an ICC profile of version 2.1 (ICC.1:2001-04)."""
    text = b"desc\0\0\0\0\0\0\0\5test\0".ljust(12 + 5 + 78, b"\0")
    tags = {
        b"desc": text,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(0.9642, 1.0, 0.8249),
        **tags,
    }
    offset = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content.ljust(-(-len(content) // 4) * 4, b"\0")
    header = struct.pack(">I", 128 + len(table) + len(data)) + b"test\x02\x10\0\0" + kind + space
    header += pcs + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += _fixed(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\0") + table + data


def rgb_profile(primaries: npt.NDArray[np.float64], gamma: float) -> bytes:
    """Return a profile of an RGB space."""
    curve = b"curv\0\0\0\0\0\0\0\1" + struct.pack(">H", round(gamma * 256))
    colours = {
        name: b"XYZ \0\0\0\0" + _fixed(*primaries[:, index])
        for index, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))
    }
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return icc_profile(b"RGB ", b"XYZ ", b"mntr", {**colours, **curves})


def grey_profile(gamma: float) -> bytes:
    """Return a profile of grey levels."""
    curve = b"curv\0\0\0\0\0\0\0\1" + struct.pack(">H", round(gamma * 256))
    return icc_profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": curve})


def cmyk_profile(lab: npt.NDArray[np.float64]) -> bytes:
    """Return a profile of a printer: the L*a*b* colour (2, 2, 2, 2, 3) of each mixture of inks."""
    identity = bytes(range(256))
    encoded = np.round(np.stack([lab[..., 0] * 2.55, lab[..., 1] + 128, lab[..., 2] + 128], -1))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += identity * 4 + encoded.astype(np.uint8).tobytes() + identity * 3
    return icc_profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table, b"A2B1": table})


def xyz_to_srgb(xyz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sRGB levels, 0 to 255, of colours (..., 3) in XYZ with white D50.

    Source: IEC 61966-2-1.
    """
    linear = np.clip(xyz @ np.linalg.inv(SRGB).T, 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return curved * 255


def lab_to_srgb(lab: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sRGB levels, 0 to 255, of colours (..., 3) in CIELAB with white D50."""
    across = (lab[..., 0] + 16) / 116
    f = np.stack([across + lab[..., 1] / 500, across, across - lab[..., 2] / 200], axis=-1)
    cubed = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    return xyz_to_srgb(cubed * np.array([0.9642, 1.0, 0.8249]))
