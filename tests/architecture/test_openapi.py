"""The published description of the control API: up to date, complete, and its examples are real."""

import json
import re
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from server.assembly.description import described

FILE = Path(__file__).parents[2] / "docs/reference/openapi.json"
DOCUMENT: dict[str, Any] = json.loads(FILE.read_text())
OPERATIONS = [
    (f"{method.upper()} {path}", operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


def test_the_published_description_is_that_of_the_app() -> None:
    assert FILE.read_text() == described(), "run: make docs"


def test_every_operation_is_described() -> None:
    names = [operation["operationId"] for _, operation in OPERATIONS]
    assert len(names) == len(set(names))
    for name, operation in OPERATIONS:
        assert operation["description"], name
        assert len(operation["tags"]) == 1, name
        assert operation["security"] == [{"bearer": []}], name
        assert operation["x-tenon-roles"], name
        done = [status for status in operation["responses"] if status.startswith("2")]
        assert done, name
        for status in done:
            answer = operation["responses"][status]
            empty = status == "204" or name.startswith("HEAD ")
            assert empty or all(body["schema"] for body in answer["content"].values()), (name, status)
        assert {"400", "401", "403", "404", "500", "503"} <= set(operation["responses"]), name
        if name.split()[0] not in ("GET", "HEAD"):
            assert "Idempotency-Key" in [each["name"] for each in operation["parameters"]], name


def test_every_reference_leads_somewhere() -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for inner in value.values() for found in references(inner)]
        return [found for inner in value for found in references(inner)] if isinstance(value, list) else []

    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        target: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        assert target


def test_examples_of_bodies_fit_their_schemas() -> None:
    count = 0
    for name, operation in OPERATIONS:
        for body in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in body:
                schema = body["schema"] | {"components": DOCUMENT["components"]}
                faults = [
                    error.message for error in Draft202012Validator(schema).iter_errors(body["example"])
                ]
                assert not faults, (name, faults)
                count += 1
    assert count >= 12


def test_the_page_for_people_lists_every_operation_and_who_may() -> None:
    letters = {"service": "S", "platform_admin": "P", "tenant_admin": "A", "trainer": "T"}
    page = (FILE.parent / "http.md").read_text()
    listed = re.findall(r"^\| `([A-Z]+ /\S+)` \| (all|[SPAT ]+) \| ", page, re.M)
    expected = [
        (
            name.replace("/api/v1", ""),
            "all" if len(roles) == 5 else " ".join(letters[role] for role in roles),
        )
        for name, roles in ((name, operation["x-tenon-roles"]) for name, operation in OPERATIONS)
    ]
    assert listed == expected
