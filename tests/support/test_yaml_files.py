"""YAML is parsed as DVC parses it, and errors name the file and the line."""

from pathlib import Path

import pytest
from dvc.utils import serialize
from dvc.utils.hydra import apply_overrides

from catdog.errors import CatdogError
from catdog.support.yaml_files import parse_mapping, parse_yaml


def test_numbers_and_words_follow_yaml_1_2() -> None:
    text = "small: 1e-05\nanswer: yes\nlist: [1, 2.5]\n"
    assert parse_yaml(text, "a.yaml") == {"small": 1e-05, "answer": "yes", "list": [1, 2.5]}


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_an_empty_text_is_an_empty_mapping(text: str) -> None:
    assert parse_yaml(text, "a.yaml") == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("outs:\n<<<<<<< HEAD\n- md5: abc\n=======\n", " in line 3"),
        ("a: 1\na: 2\n", " in line 2"),
        ("a: !!python/object:os.system {}\n", " in line 1"),
        ("a: \x00\n", " in line 1"),
    ],
)
def test_an_error_is_one_line_with_file_and_position(text: str, line: str) -> None:
    with pytest.raises(CatdogError) as error:
        parse_yaml(text, "a.yaml")
    assert str(error.value).startswith(f"a.yaml: invalid YAML{line}: ")
    assert str(error.value).endswith("; fix the file")
    assert "\n" not in str(error.value)


NESTED = "".join(f"{' ' * depth}a:\n" for depth in range(3000))
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{letter}: &{letter} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, letter in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i}\n  <<: *a{i - 1}\n" for i in range(1, 3000))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 0x_\n", 2),
        ("a: 1\nb: 2020-13-45\n", 2),
        ("a:\n  b: !!int abc\n", 2),
        ("a: !!int\n", 1),
        ("a: !!bool x\n", 1),
        ("a: !!binary a\n", 1),
        ("a: !!timestamp x\n", 1),
        ("a: 1\nb: \x00\n", 2),
        ("a: \x07\n", 1),
        (f"a: {'9' * 5000}\n", 1),
        ("a: " + "[" * 100_000, 1),
        ("a: " + "{a: " * 1000, 1),
        (NESTED, 50),
        (BOMB, 6),
        ("a: &a [*a]\n", 1),
        (MERGES, 629),
        ("{a: b}: c\n", 1),
        ("a:\n\tb: 1\n", 2),
        ("a: 1\n---\nb: 2\n", 2),
    ],
)
def test_each_error_of_the_parser_names_its_line(text: str, line: int) -> None:
    with pytest.raises(CatdogError) as error:
        parse_yaml(text, "a.yaml")
    assert str(error.value).startswith(f"a.yaml: invalid YAML in line {line}: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "value",
    [
        "017",
        "-017",
        "08",
        "00",
        "0o17",
        "0_1",
        "2020-01-01",
        "!!int 3",
        "!!str 5",
        "!local x",
        "&a !!null x",
    ],
)
def test_what_yaml_1_1_reads_differently_is_refused_where_it_matters(value: str) -> None:
    with pytest.raises(CatdogError, match=r"^a\.yaml: invalid YAML in line 2: "):
        parse_yaml(f"a: 1\nb: {value}\n", "a.yaml", unambiguous=True)
    parse_yaml('a: "017"\nb: "2020-01-01"\n', "a.yaml", unambiguous=True)


SPELLINGS = (
    *("1", "-1", "+1", "0", "-0", "10", "1_000", "0x1F", "0b11", ".5", "5.", "+.5", "1.0", "-1.5"),
    *("1e-5", "1e5", "1E5", "1.0e+3", "1e+3", "5.e1", "0.0_1", "1_0.5", "true", "True", "FALSE"),
    *(
        "null",
        "Null",
        "~",
        "",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "1:30",
        "word",
        "'017'",
        "1.2.3",
    ),
    *("[1, 2.5]", "[yes, no]", "&a 1", ".inf", "1e400", "12345678901234567890123"),
)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_value_is_the_same_for_dvc_before_and_after_it_changes_another_key(
    spelling: str, tmp_path: Path
) -> None:
    """`dvc params diff` and dvc.lock read with load_yaml; `-S` rewrites the file."""
    file = tmp_path / "params.yaml"
    file.write_text(f"a:\n  b: {spelling}\n  z: 1\n")
    value = parse_yaml(file.read_text(), "a.yaml", unambiguous=True)["a"]["b"]
    in_lock = parse_yaml(serialize.dumps_yaml({"b": value}), "dvc.lock")["b"]
    assert [serialize.load_yaml(file)["a"]["b"], in_lock] == [value, value]
    apply_overrides(file, ["a.z=2"])
    after = parse_yaml(file.read_text(), "a.yaml", unambiguous=True)["a"]
    assert (type(after["b"]), after) == (type(value), {"b": value, "z": 2})


@pytest.mark.parametrize("text", ["", "- a\n", "word\n"])
def test_a_mapping_is_required(text: str) -> None:
    with pytest.raises(CatdogError, match=r"^dvc\.lock: must be a mapping; restore .* from git$"):
        parse_mapping(text, "dvc.lock")
    assert parse_mapping("a: 1\n", "dvc.lock") == {"a": 1}
