"""Refuse deeply nested YAML, which ends the process of ruamel.yaml's parser in C."""

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent

from flows.errors import FlowError

MAX_DEPTH = 50  # nested lists and mappings, as in catdog/support/yaml_files.py


def check_nesting(text: str, source: str) -> None:
    """Raise FlowError, with the line, if lists and mappings are nested more than MAX_DEPTH deep."""
    depth = 0
    try:
        for event in YAML(typ="safe").parse(text):
            depth += isinstance(event, CollectionStartEvent)
            depth -= isinstance(event, CollectionEndEvent)
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1
                raise FlowError(
                    f"{source}: invalid YAML (more than {MAX_DEPTH} nested lists and mappings, "
                    f"line {line})"
                )
    except YAMLError:
        pass  # reported, with its line, by the caller's parser
