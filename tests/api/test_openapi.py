"""The description covers what is served, all of it and nothing else."""

import json
import re
from typing import Any

import httpx2
import pytest

from doorward.api import app as api
from doorward.api.openapi import describe

DOCUMENT: dict[str, Any] = json.loads(describe(api.OPERATIONS, prefix=api.PREFIX))


async def test_every_route_is_described_and_nothing_else(world: Any) -> None:
    served = {
        (route.path, method.lower())
        for route in world.app.routes
        if "rest:path" not in route.path
        for method in route.endpoint._operations
    }
    described = {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == served
    assert len(described) == len(api.OPERATIONS)


async def test_it_is_served(admin: httpx2.AsyncClient) -> None:
    answer = await admin.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT
    assert DOCUMENT["openapi"].startswith("3.1.")


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    names = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert references(DOCUMENT) <= names
    queries = {f"#/components/schemas/{each.query.__name__}" for each in api.OPERATIONS if each.query}
    assert names - references(DOCUMENT) <= queries  # these are written out as parameters


OPERATIONS = [
    (path, method, each) for path, methods in DOCUMENT["paths"].items() for method, each in methods.items()
]


@pytest.mark.parametrize(
    ("path", "method", "each"), OPERATIONS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_operation_is_described_whole(path: str, method: str, each: dict[str, Any]) -> None:
    assert each["operationId"]
    assert each["summary"]
    in_path = {one["name"] for one in each["parameters"] if one["in"] == "path"}
    assert in_path == set(re.findall(r"\{(\w+)\}", path))
    assert all(one["required"] for one in each["parameters"] if one["in"] == "path")
    assert {"401", "403", "default"} <= set(each["responses"])
    assert [status for status in each["responses"] if status.startswith("2")]
    assert ("requestBody" in each) <= (method in {"post", "put", "patch"})


def test_a_change_of_the_policy_may_name_the_version_it_is_for() -> None:
    paths = DOCUMENT["paths"]
    (header,) = (one for one in paths["/api/v1/policy"]["put"]["parameters"] if one["in"] == "header")
    assert (header["name"], header["required"]) == ("If-Match", False)
    assert "412" in paths["/api/v1/policy"]["put"]["responses"]
    assert all(one["in"] != "header" for one in paths["/api/v1/policy"]["get"]["parameters"])


def test_requests_are_closed_and_answers_open() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["NewUser"]["additionalProperties"] is False
    assert "additionalProperties" not in schemas["User"]
    assert schemas["NewKey"]["properties"]["expires_in"]["maximum"] == 3650 * 86400
