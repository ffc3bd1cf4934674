"""The formats of photos, recognized by content: an allow-list, and names for other formats."""

import re

import pi_heif
from PIL import (  # noqa: F401 - importing a plugin registers its format
    AvifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

ALLOWED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "HEIF", "PPM")
"""Pillow's names; JPEG includes MPO.

Pillow recommends such a list: its plugin for PostScript runs Ghostscript. See
https://pillow.readthedocs.io/en/stable/handbook/security.html.
"""

HEAD = 1024
"""number of bytes at the start of a file that `sniff` needs"""

# Each worker decodes one photo at a time. Previews and depth maps of the container are not used.
pi_heif.options.DECODE_THREADS = 1
pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)

PHOTOS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WebP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "TIFF": rb"II\*\0|MM\0\*|II\+\0|MM\0\+",
    "JPEG 2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n",
    "AVIF": rb"....ftyp(?:avif|avis|(?:mif1|msf1).{4,64}avi[fs])",
    "HEIC": rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)",
    "PPM": rb"P[1-6][ \t\r\n#]",
}
OTHERS = {
    "PostScript": rb"%!PS|\xc5\xd0\xd3\xc6|\x04%!PS",
    "PDF": rb".{0,16}%PDF-",
    "SVG": rb"[\xef\xbb\xbf\s]*(?:<\?xml.{0,512})?(?:<!--.{0,512})?(?:<!DOCTYPE svg|<svg)",
    "HTML": rb"[\xef\xbb\xbf\s]*(?i:<!doctype html|<html|<head|<body)",
    "XML": rb"[\xef\xbb\xbf\s]*<\?xml",
    "Photoshop (PSD)": rb"8BPS",
    "GIMP (XCF)": rb"gimp xcf",
    "icon (ICO)": rb"\0\0[\x01\x02]\0[^\0]\0",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
    "camera raw": rb"II\*\0....CR|FUJIFILMCCD-RAW|IIU\0|IIR[OS]|MMOR|\0MRM|FOVb|....ftypcrx ",
    "OpenEXR": rb"v/1\x01",
    "Radiance HDR": rb"#\?(?:RADIANCE|RGBE)",
    "DICOM": rb".{128}DICM",
    "FITS": rb"SIMPLE  =",
    "Windows metafile": rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF",
    "video": rb"....ftyp|....moov|RIFF....AVI |\x1a\x45\xdf\xa3|\0\0\x01[\xba\xb3]|OggS|FLV\x01",
    "sound": rb"RIFF....WAVE|ID3|fLaC|\xff[\xfb\xf3\xf2]",
    "zip archive": rb"PK(?:\x03\x04|\x05\x06)",
    "archive": rb"7z\xbc\xaf\x27\x1c|Rar!|\xfd7zXZ\0|.{257}ustar",
    "compressed file": rb"\x1f\x8b\x08|BZh\d|\x28\xb5\x2f\xfd",
    "program": rb"\x7fELF|MZ.{58}|\xcf\xfa\xed\xfe",
    "SQLite": rb"SQLite format 3",
    "NumPy array": rb"\x93NUMPY",
    "pointer of Git LFS, without the photo": rb"version https://git-lfs",
}
TEXT = re.compile(rb"[\t\n\r\f\x1b -~\x80-\xff]*")


def sniff(head: bytes) -> str | None:
    """Return the supported format that the first HEAD bytes of a file indicate, or None."""
    return _matching(PHOTOS, head)


def describe_unsupported(content: bytes) -> str:
    """Return the reason to refuse a file that is in none of the supported formats."""
    head = content[:HEAD]
    if name := _matching(OTHERS, head):
        return f"unsupported format: {name}"
    if name := sniff(head):
        return f"damaged: invalid {name} header, or a variant that is not supported"
    if not any(head):
        return "damaged: only zero bytes"
    if TEXT.fullmatch(head) and head.isascii():
        return "unsupported format: text"
    return "unknown file format"


def _matching(patterns: dict[str, bytes], head: bytes) -> str | None:
    found = (name for name, pattern in patterns.items() if re.match(pattern, head, re.DOTALL))
    return next(found, None)


# DNGVersion and CFARepeatPatternDim
RAW_TAGS = frozenset({50706, 33421})
SUB_IFDS, NEW_SUBFILE_TYPE = 330, 254


def is_camera_raw(image: Image.Image) -> bool:
    """Return whether a TIFF file is camera raw, of which Pillow would decode only the preview.

    DNG has its own tags. NEF, ARW and others have a preview first (a "reduced-resolution image" in
    the words of TIFF 6.0), and the sensor data in a sub-IFD.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    tags = image.tag_v2
    is_preview = SUB_IFDS in tags and bool(int(tags.get(NEW_SUBFILE_TYPE) or 0) & 1)
    return is_preview or any(tag in tags for tag in RAW_TAGS)
