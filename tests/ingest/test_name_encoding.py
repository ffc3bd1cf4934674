"""Names without a stated encoding are decoded with certainty, or refused with their readings."""

import pytest

from catdog.errors import CatdogError
from catdog.ingest import name_encoding


def encoded(encoding: str, *names: str) -> list[bytes]:
    return [f"{name}/1.jpg".encode(encoding) for name in names]


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("utf-8", ["cat", "dog"]),
        ("utf-8", ["猫", "Hündchen"]),
        ("gbk", ["波斯猫", "金毛寻回犬", "照片"]),
        ("cp866", ["кошка", "собака"]),
        ("cp437", ["Kätzchen", "Hündchen", "Vögel", "Größe", "façade à Noël"]),
    ],
)
def test_an_encoding_in_which_alone_the_names_are_words_is_detected(
    encoding: str, names: list[str]
) -> None:
    raw = encoded(encoding, *names)
    assert name_encoding.decode_all(raw, None, "a.zip") == [f"{name}/1.jpg" for name in names]


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("gbk", ["猫", "狗"]),
        ("cp932", ["ねこ", "いぬ"]),
        ("cp949", ["고양이", "개"]),
        ("big5", ["貓", "狗"]),
    ],
)
def test_names_with_several_readings_are_refused_with_each_of_them(
    encoding: str, names: list[str]
) -> None:
    with pytest.raises(CatdogError, match=r"^a\.zip: the encoding .* is not stated; ") as refused:
        name_encoding.decode_all(encoded(encoding, *names), None, "a.zip")
    readings = str(refused.value)
    assert f"--encoding {encoding} (" in readings
    assert all(name in readings for name in names)


def test_names_that_fit_no_encoding_are_refused() -> None:
    with pytest.raises(CatdogError, match=r"pass --encoding, such as --encoding gbk$"):
        name_encoding.decode_all([b"-\xb9-/1.jpg"], None, "a.zip")


def test_the_given_encoding_is_used() -> None:
    assert name_encoding.decode_all(encoded("gbk", "猫"), "gbk", "a.zip") == ["猫/1.jpg"]


def test_a_name_that_is_invalid_in_the_given_encoding_is_refused() -> None:
    with pytest.raises(CatdogError, match=r"a\.zip: the file name b'\\xff' is invalid in .*gbk"):
        name_encoding.decode_all([b"\xff"], "gbk", "a.zip")


@pytest.mark.parametrize("encoding", ["klingon", "hex", "rot13"])
def test_an_unknown_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(CatdogError, match=rf"^--encoding: unknown encoding '{encoding}'"):
        name_encoding.check(encoding)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "cp037", "punycode", "undefined"])
def test_an_encoding_in_which_ascii_reads_otherwise_is_refused(encoding: str) -> None:
    with pytest.raises(CatdogError, match=rf"^--encoding: '{encoding}' is not based on ASCII; "):
        name_encoding.check(encoding)
