"""The page about the control API says what is true: its curl commands are sent as they are written."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.digests import Digest
from registry.models import Role
from tests.support.control import PREFIX, ControlWorld, control_world

PAGE = (Path(__file__).parents[2] / "docs/reference/http.md").read_text()
SCRIPTS = re.findall(r"```sh\n(.*?)```", PAGE, re.S)
BYTES = b"the bytes of the digest"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ControlWorld]:
    with control_world(tmp_path) as made:
        yield made


def test_the_page_can_be_followed_from_top_to_bottom(bench: ControlWorld) -> None:
    catalog = bench.world.catalog
    given = {
        "TENON": "",
        "ADMIN": catalog.issue_key(None, role=Role.PLATFORM_ADMIN, actor="test")[1],
        "KEY": catalog.issue_key("bank_a", role=Role.TENANT_ADMIN, actor="test")[1],
        "VERSION": bench.world.evaluated(),
        "DIGEST": Digest.of(BYTES),
        "POLICY": bench.world.policy(),
    }
    commands = [command for script in SCRIPTS for command in _commands(script, given)]
    assert len(commands) == 14
    for command in commands:
        answer = _sent(bench, command)
        assert answer.status_code in (200, 201), (command, answer.text)
    assert catalog.tenant("insurer_d").suspended
    assert bench.call("GET", "/tenants/bank_a/adapters/assistant/aliases/live").json()["epoch"] == 1
    assert catalog.routing("bank_a").revision == 1


def _commands(script: str, given: dict[str, str]) -> list[list[str]]:
    """As a shell would split them."""
    for name, value in given.items():
        script = script.replace(f"'${name}'", value).replace(f"${name}", value)
    assert "$" not in script
    lines = script.replace("\\\n", " ")
    words = shlex.split(lines)
    starts = [index for index, word in enumerate(words) if word == "curl"]
    return [words[start:end] for start, end in zip(starts, [*starts[1:], len(words)], strict=True)]


def _sent(bench: ControlWorld, command: list[str]) -> Any:
    """What curl would send."""
    method, url, headers, body = "GET", "", dict[str, str](), None
    words = iter(command[1:])
    for word in words:
        if word == "-s":
            continue
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word in ("-d", "--data-binary"):
            body = next(words)
        else:
            assert word.startswith(PREFIX), word
            url = word
    return bench.client.request(method, url, headers=headers, content=body)
