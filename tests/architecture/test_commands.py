"""What every command has."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from server.cli import main

SILENT = {"serve control", "serve engine", "serve router"}
"""Processes that run until they are ended: they have nothing to say but their log."""


def _commands(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield " ".join(path), command
        return
    for name, each in below.items():
        yield from _commands(each, *path, name)


def _all() -> dict[str, Any]:
    if not main.app.registered_commands:
        main._assemble()
    return dict(_commands(typer.main.get_command(main.app)))


COMMANDS = _all()


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - SILENT))
def test_every_command_speaks_to_machines(name: str) -> None:
    (json,) = (option for option in COMMANDS[name].params if "--json" in option.opts)
    assert json.is_flag


def test_the_silent_ones_exist() -> None:
    assert set(COMMANDS) >= SILENT
