"""What scripts/faults and scripts/trace run: every command, and every way in which one writes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from fcdeploy.cli import COMMANDS, fcdeploy
from scripts.robustness.faults import find_ends
from scripts.robustness.faults_commands import list_commands
from scripts.robustness.trace_calls import COMMANDS as TRACED

DISTURBED = [command.arguments for command in list_commands()]
SERVER = "serve"  # it has no end that outputs could be looked at; tests/serve/test_serve_survives.py disturbs it
WRITES = re.compile(r"\b[Ww]rites?\b|\bwritten\b|^Put |^Keep the ")


def list_leaves(group: click.Group = fcdeploy, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command of the command line, with the words that call it."""
    for name in COMMANDS if group is fcdeploy else group.commands:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from list_leaves(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


LEAVES = dict(list_leaves())


def writes(option: click.Parameter) -> bool:
    """Whether it names a file or a folder that comes to be."""
    help_text = option.help or "" if isinstance(option, click.Option) else ""
    return bool(option.metavar) and ("--output" in option.opts or WRITES.search(help_text) is not None)


def find_calls(name: str, option: click.Parameter | None = None) -> list[tuple[str, ...]]:
    """What scripts/faults runs of a command, where an option is given."""
    words = tuple(name.split())
    calls = [call for call in DISTURBED if call[: len(words)] == words]
    return [call for call in calls if option is None or set(option.opts) & set(call)]


@pytest.mark.parametrize("name", sorted(LEAVES.keys() - {SERVER}))
def test_every_command_and_all_that_it_writes_is_disturbed(name: str) -> None:
    assert find_calls(name)
    for option in LEAVES[name].params:
        assert not writes(option) or find_calls(name, option), option.opts


@pytest.mark.parametrize(("name", "option"), [("compile", "--emit"), ("report", "--format")])
def test_every_form_of_an_output_is_disturbed(name: str, option: str) -> None:
    (chosen,) = [each for each in LEAVES[name].params if option in each.opts]
    given = {call[call.index(option) + 1] if option in call else chosen.default for call in find_calls(name)}
    assert isinstance(chosen, click.Option)
    listed = re.findall(r"(\w+):", chosen.help or "")  # --emit takes words, and says what each is
    assert given == set(chosen.type.choices if isinstance(chosen.type, click.Choice) else listed)


def test_options_that_write_are_known_by_what_is_said_of_them() -> None:
    found = {option.opts[-1] for command in LEAVES.values() for option in command.params if writes(option)}
    assert found == {"--output", "--csv", "--costs", "--save-plan", "--triton"}


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_every_command_is_traced(name: str) -> None:
    assert any(f"{command} ".startswith(f"{name} ") for command in TRACED)


def test_of_equal_operations_in_a_row_the_ends_are_taken() -> None:
    assert find_ends(["read a", "read b", "read b", "read b", "read a", "read a"]) == [1, 2, 4, 5, 6]
    assert find_ends([]) == []
