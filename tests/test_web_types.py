"""What the console's pages know of the API is made from the API's own types; this fails when the file is stale.

``python -m tests.test_web_types`` writes it.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from doorward.api import console, console_types
from doorward.api.types import Problem

FILE = Path(__file__).parent.parent / "web" / "src" / "api" / "types.ts"
_HEAD = "// Made from the API's own types by `python -m tests.test_web_types`; change those.\n"
_WIDTH = 110


def roots() -> list[Any]:
    """The types that a page sends or gets."""
    found: list[Any] = [Problem, *console_types.EVENTS]
    for each in console.OPERATIONS:
        found += [kind for kind in (each.body, each.query, each.answer) if isinstance(kind, type)]
    return [kind for kind in dict.fromkeys(found) if issubclass(kind, msgspec.Struct)]


def written(schema: dict[str, Any]) -> str:
    """A JSON schema as a type of TypeScript. Raises KeyError for what is not known here."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " | ".join(written(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(msgspec.json.encode(one).decode() for one in schema["enum"])
    if schema["type"] == "object":
        return f"Record<string, {written(schema['additionalProperties'])}>"
    if schema["type"] == "array":
        inside = written(schema["items"])
        return f"({inside})[]" if " " in inside else f"{inside}[]"
    return {
        "string": "string",
        "integer": "number",
        "number": "number",
        "boolean": "boolean",
        "null": "null",
    }[schema["type"]]


def types() -> str:
    """The whole file."""
    _, components = msgspec.json.schema_components(roots(), ref_template="{name}")
    parts = [_HEAD]
    for name, schema in sorted(components.items()):
        lines = [f"/** {schema['description'].partition(chr(10))[0]} */", f"export interface {name} {{"]
        for field, kind in schema["properties"].items():
            mark = "" if field in schema.get("required", ()) else "?"
            one = f"  {field}{mark}: {written(kind)};"
            if len(one) > _WIDTH:
                options = "".join(f"\n    | {option}" for option in written(kind).split(" | "))
                one = f"  {field}{mark}:{options};"
            lines.append(one)
        parts.append("\n".join([*lines, "}\n"]))
    return "\n".join(parts)


def test_the_types_of_the_pages_are_those_of_the_api() -> None:
    assert FILE.read_text(encoding="utf-8") == types(), "stale: python -m tests.test_web_types"


def test_what_is_not_known_is_no_type() -> None:
    assert written({"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}) == (
        "(string | null)[]"
    )
    with pytest.raises(KeyError):
        written({"type": "object"})


if __name__ == "__main__":
    FILE.write_text(types(), encoding="utf-8")
    sys.exit(0)
