"""The control API fuzzed from its own description (schemathesis), as each role.

Every operation of the document gets requests that fit its schema and requests that do not, with names and
digests that exist mixed in, so that they reach behind the first 404. Whatever is answered must be in the
document: the status, the media type, the headers and the body.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.control import ROLES, ControlWorld, control_world
from tests.support.registries import NAME

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 5
"""For each operation, over all kinds of requests; each of them is sent by every role."""
DOCUMENT = json.loads((Path(__file__).parents[3] / "docs/reference/openapi.json").read_text())
"""As published; tests/architecture compares it with the app."""
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]


def _without_security() -> dict[str, Any]:
    """Credentials are drawn here, by role: schemathesis would make some up."""
    document: dict[str, Any] = deepcopy(DOCUMENT)
    document["components"].pop("securitySchemes")
    for methods in document["paths"].values():
        for operation in methods.values():
            operation.pop("security", None)
    return document


SCHEMA = schemathesis.openapi.from_dict(_without_security())


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlWorld]:
    with control_world(tmp_path_factory.mktemp("fuzzed")) as made:
        made.world.promoted(seed=1)
        made.world.evaluated(seed=2)
        made.world.policy()
        made.world.catalog.announce(made.world.engine(), actor="test")
        yield made


def _known(bench: ControlWorld) -> dict[str, str]:
    """Values of path parameters that lead somewhere."""
    catalog = bench.world.catalog
    return {
        "tenant": "bank_a",
        "adapter": "assistant",
        "alias": "live",
        "version": catalog.versions(NAME)[-1].version,
        "digest": catalog.policies("bank_a")[0].identity(),
        "engine": "engine-0",
        "ref": "tiny",
    }


def _sent(bench: ControlWorld, case: Any, role: str) -> Any:
    request = case.as_transport_kwargs(base_url="http://testserver")
    headers = {
        name: str(value).encode("latin-1", "replace")
        for name, value in request["headers"].items()
        if name != "Authorization"
    }
    headers |= {name: value.encode() for name, value in bench.headers(role).items()}
    if headers.get("Idempotency-Key", b"").isalnum():
        # Few keys are drawn, and again and again: most of them must be new for the request to be carried out.
        headers["Idempotency-Key"] += b"%d" % bench.world.catalog.position().size
    body = {"json": request["json"]} if "json" in request else {}
    if (data := request.get("data")) is not None:
        body = {"content": data if isinstance(data, bytes) else str(data).encode()}
    return bench.client.request(
        request["method"], request["url"], params=request["params"], headers=headers, **body
    )


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=str)
def test_every_operation_keeps_its_word(bench: ControlWorld, path: str, method: str) -> None:
    operation = SCHEMA[path][method]
    known = {name: value for name, value in _known(bench).items() if f"{{{name}}}" in path}
    fitting = operation.as_strategy(path_parameters=known)
    anything = operation.as_strategy()
    permitted = DOCUMENT["paths"][path][method]["x-tenon-roles"]
    # Those that are refused first: they must leave something to do for those that may.
    roles = sorted(ROLES, key=lambda role: role in permitted)
    wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE, path_parameters=known)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(fitting, fitting, wrong, anything))
    def fuzzed(case: Any) -> None:
        for role in roles:
            note(f"as {role}")
            answer = _sent(bench, case, role)
            checks = CHECKS if answer.status_code in (401, 403, 404) else [*CHECKS, negative_data_rejection]
            case.validate_response(answer, checks=checks)
            if permitted and role not in permitted:
                assert answer.status_code in (401, 403, 404), answer.text
            _heal(bench)

    fuzzed()


def _heal(bench: ControlWorld) -> None:
    """A platform admin may suspend the tenant, and then nothing of it could be asked any more."""
    if bench.world.catalog.tenant("bank_a").suspended:
        bench.world.catalog.resume_tenant("bank_a", actor="test")
