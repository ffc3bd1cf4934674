"""YAML is parsed as DVC parses it, and errors name the file and the line."""

import pytest

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
        ("a: \x00\n", ""),
    ],
)
def test_an_error_is_one_line_with_file_and_position(text: str, line: str) -> None:
    with pytest.raises(CatdogError) as error:
        parse_yaml(text, "a.yaml")
    assert str(error.value).startswith(f"a.yaml: invalid YAML{line}: ")
    assert str(error.value).endswith("; fix the file")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "- a\n", "word\n"])
def test_a_mapping_is_required(text: str) -> None:
    with pytest.raises(CatdogError, match=r"^dvc\.lock: must be a mapping; restore .* from git$"):
        parse_mapping(text, "dvc.lock")
    assert parse_mapping("a: 1\n", "dvc.lock") == {"a": 1}
