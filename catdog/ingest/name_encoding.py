"""The encoding of file names in archives that do not state it.

charset-normalizer needs longer texts: it reads the GBK names 波斯猫, 金毛寻回犬 and 照片 as UTF-16,
and 猫 and 狗 as Big5. A wrong name would be a wrong class, so several possible encodings are an
error here.
"""

import re
import unicodedata
from collections.abc import Iterable

from catdog.errors import CatdogError

# The code pages that Windows uses in zip archives, with the scripts of the letters that they are
# used for, as the first word of the Unicode name.
SCRIPTS = {
    "cp932": {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"},
    "gbk": {"CJK"},
    "big5": {"CJK"},
    "cp949": {"HANGUL"},
    "cp866": {"CYRILLIC"},
    "cp1251": {"CYRILLIC"},
    "cp437": {"LATIN"},
    "cp850": {"LATIN"},
    "cp1252": {"LATIN"},
}
WITHIN_LATIN = re.compile(r"[A-Za-z][^\x00-\x7f]+[A-Za-z]")
SHOWN_NAMES = 3
UNCHANGED = b"/.aZ09"  # in all encodings that file names of archives have


def detect(names: Iterable[bytes], where: str) -> str:
    """Return the encoding of file names, all of which have the same.

    UTF-8 if all names are valid UTF-8, or else the code page in which all of them consist of
    letters of its language, if there is only one such reading. Raises CatdogError if there are
    several or none; the message shows how the names read in each.
    """
    different = sorted({part for name in names if not name.isascii() for part in name.split(b"/")})
    different = [name for name in different if not name.isascii()]
    if all(decode(name, "utf-8") is not None for name in different):
        return "utf-8"
    readings: dict[tuple[str, ...], str] = {}
    for encoding, scripts in SCRIPTS.items():
        read = [decode(name, encoding) for name in different]
        texts = tuple(text for text in read if text is not None and _is_written_in(text, scripts))
        if len(texts) == len(different):
            readings.setdefault(texts, encoding)
    if len(readings) == 1:
        return next(iter(readings.values()))
    options = [
        f"--encoding {encoding} ({', '.join(texts[:SHOWN_NAMES])})"
        for texts, encoding in readings.items()
    ]
    raise CatdogError(
        f"{where}: the encoding of the file names, such as {different[0]!r}, is not stated; pass "
        f"{' or '.join(options) or '--encoding, such as --encoding gbk'}"
    )


def decode_all(names: list[bytes], encoding: str | None, where: str) -> list[str]:
    """Return file names as text, in the given encoding or else the detected one.

    Raises CatdogError if the encoding cannot be detected, or if a name is invalid in it.
    """
    encoding = encoding or detect(names, where)
    decoded = [decode(name, encoding) for name in names]
    for name, text in zip(names, decoded, strict=True):
        if text is None:
            raise CatdogError(
                f"{where}: the file name {name!r} is invalid in the encoding {encoding}; pass "
                "another --encoding"
            )
    return [text for text in decoded if text is not None]


def decode(name: bytes, encoding: str) -> str | None:
    """Return a file name as text; None if it is invalid in this encoding."""
    try:
        return name.decode(encoding)
    except UnicodeError:  # UnicodeDecodeError, but punycode raises its base class
        return None


def check(encoding: str) -> None:
    """Raise CatdogError if Python does not know an encoding, or if it changes ASCII.

    UTF-16 and EBCDIC do, so the byte that separates folders would be another character.
    """
    use = f"use one of Python's names, such as {', '.join(SCRIPTS)}"
    try:
        changes_ascii = decode(UNCHANGED, encoding) != UNCHANGED.decode()
    except LookupError:
        raise CatdogError(f"--encoding: unknown encoding {encoding!r}; {use}") from None
    if changes_ascii:
        raise CatdogError(f"--encoding: {encoding!r} is not based on ASCII; {use}")


def _is_written_in(text: str, scripts: set[str]) -> bool:
    """Return whether all characters beyond ASCII are letters of the scripts, also combined ones.

    Punctuation is allowed in Chinese, Japanese and Korean names. Letters of other scripts than
    Latin are not expected inside of words of ASCII letters.
    """
    punctuation = "P" if scripts & {"CJK", "HANGUL"} else ""
    for character in text:
        category = unicodedata.category(character)
        if character.isascii() or category[0] == punctuation:
            continue
        script = unicodedata.name(character, "").split(" ")[0]
        if category[0] not in "LM" or script not in {*scripts, "COMBINING"}:
            return False
    return "LATIN" in scripts or not WITHIN_LATIN.search(text)
