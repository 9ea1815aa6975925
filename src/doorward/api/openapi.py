"""The API describes itself (OpenAPI 3.1.1): from the operations and their types, so it cannot say anything else."""

from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Any

import msgspec
from starlette.responses import Response

from doorward import __version__
from doorward.api.types import Problem
from doorward.asgi import Operation
from doorward.errors import DoorwardError, NotPermitted, Unauthenticated

_INTRODUCTION = (
    "The API of a doorward server. Times are RFC 3339 in UTC, durations are seconds. Requests with fields that are not "
    "described here are refused; answers may gain fields, and readers ignore those they do not know."
)
_TOKEN = "A token made by `doorward tokens create`. On the socket in the data directory none is needed."  # noqa: S105 - a description

_SESSION = (
    "A browser in which somebody has signed in, on a page of the same door. To look, a person's own device in the tailnet "
    "needs neither. Changes need a proof of the last 15 minutes, "
    "and what makes a way in is refused; the problem is then `fresh-proof-needed`."
)


def _content(schema: Any, media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": schema}}


def _deviations(found: Sequence[type[DoorwardError]]) -> dict[str, Any]:
    """The problems an operation may answer, by status; ``default`` is any other."""
    described: dict[str, Any] = {}
    every: tuple[type[DoorwardError], ...] = (Unauthenticated, NotPermitted, *found)
    for kind in every:
        text = (kind.__doc__ or "").partition("\n")[0]
        described[str(kind.status)] = {"description": text, "content": _problem()}
    described["default"] = {"description": "Any other problem.", "content": _problem()}
    return described


def _problem() -> dict[str, Any]:
    return _content({"$ref": "#/components/schemas/Problem"}, "application/problem+json")


def _parameters(each: Operation, schemas: dict[Any, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    described = [
        {"name": name, "in": "path", "required": True, "schema": schemas[kind]}
        for name, kind in each.parts.items()
    ]
    if each.query is not None:
        query = components[each.query.__name__]
        described += [
            {"name": name, "in": "query", "required": name in query.get("required", ()), "schema": schema}
            for name, schema in query["properties"].items()
        ]
    if each.conditional:
        text = "What the ETag header said of the version this change is made for; another is in force: 412."
        header = {"name": "If-Match", "in": "header", "required": False, "description": text}
        described.append({**header, "schema": {"type": "string"}})
    return described


def _described(each: Operation, schemas: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Done."}
    if each.answer is Response:
        answer["content"] = _content({"type": "object"})
    elif each.answer is not NoneType:
        answer["content"] = _content(schemas[each.answer])
    found: dict[str, Any] = {
        "operationId": each.name,
        "summary": each.summary,
        "tags": [each.path.split("/")[1]],
        "parameters": _parameters(each, schemas, components),
        "responses": {str(each.status): answer, **_deviations(each.deviations)},
        "x-permission": each.needs,
    }
    if each.description:
        found["description"] = each.description
    if each.body is not None:
        found["requestBody"] = {"required": True, "content": _content(schemas[each.body])}
    return found


def describe(operations: Iterable[Operation], *, prefix: str) -> bytes:
    """The document for these operations, as JSON.

    Args:
        operations: all that is served.
        prefix: what their paths start with, ``/api/v1``.
    """
    every = list(operations)
    kinds: list[Any] = [Problem]
    for each in every:
        for kind in (each.body, each.query, each.answer, *each.parts.values()):
            if kind not in {None, NoneType, Response} and kind not in kinds:
                kinds.append(kind)
    found, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    schemas = dict(zip(kinds, found, strict=True))
    paths: dict[str, Any] = {}
    for each in every:
        paths.setdefault(prefix + each.path, {})[each.method.lower()] = _described(each, schemas, components)
    return msgspec.json.encode(
        {
            "openapi": "3.1.1",
            "info": {"title": "doorward", "version": __version__, "description": _INTRODUCTION},
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "token": {"type": "http", "scheme": "bearer", "description": _TOKEN},
                    "session": {
                        "type": "apiKey",
                        "in": "cookie",
                        "name": "__Host-doorward",
                        "description": _SESSION,
                    },
                },
            },
            "security": [{"token": []}, {"session": []}],
        }
    )
