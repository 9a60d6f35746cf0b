"""A JSON document that satisfies a JSON schema, for structured output and for the arguments of tool calls."""

from collections.abc import Mapping
from typing import Any, Final

from deploy.mock_ollama.tokens import Draw

_MAX_DEPTH: Final = 12
_MAX_ITEMS: Final = 1000
_MAX_CHARACTERS: Final = 100_000
_FORMATS: Final = {
    "date": "2026-11-21",
    "time": "12:00:00Z",
    "date-time": "2026-11-21T12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "6f1e2f0a-5d0e-4c53-9d0a-0f6b3a1c2d4e",
}


class SchemaError(ValueError):
    """A schema that no document can be written for, because it is no JSON schema."""


def write_document(schema: object, root: Mapping[str, Any], draw: Draw) -> Any:
    """One document for `schema`, looking up references in `root`; raises SchemaError."""
    try:
        return Writer(root, draw).write(schema)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise SchemaError(f"not a JSON schema: {error}") from error


class Writer:
    """Writes documents for one root schema, whose `$defs` it can look up."""

    def __init__(self, root: Mapping[str, Any], draw: Draw) -> None:
        self._root = root
        self._draw = draw

    def __repr__(self) -> str:
        return f"Writer({self._draw!r})"

    def write(self, schema: object, depth: int = 0) -> Any:
        """One document for `schema`; beyond the depth limit optional parts are left out."""
        if not isinstance(schema, Mapping):
            return None if schema is False else "value"
        plain = self._resolve(schema, depth)
        if "const" in plain:
            return plain["const"]
        if plain.get("enum"):
            return plain["enum"][self._draw.integer(0, len(plain["enum"]) - 1)]
        match self._type_of(plain):
            case "object":
                return self._object(plain, depth)
            case "array":
                return self._array(plain, depth)
            case "string":
                return self._string(plain)
            case "integer":
                return int(self._number(plain))
            case "number":
                return self._number(plain)
            case "boolean":
                return bool(self._draw.integer(0, 1))
            case _:
                return None

    def _resolve(self, schema: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
        plain: dict[str, Any] = dict(schema)
        for _ in range(_MAX_DEPTH):
            reference = plain.pop("$ref", None)
            if isinstance(reference, str):
                plain |= self._look_up(reference)
                continue
            branches = plain.pop("anyOf", None) or plain.pop("oneOf", None)
            if branches:
                plain |= branches[-1 if depth >= _MAX_DEPTH else 0]
                continue
            for part in plain.pop("allOf", None) or ():
                plain = _merge(plain, part)
            if not {"$ref", "anyOf", "oneOf", "allOf"} & plain.keys():
                break
        return plain

    def _look_up(self, reference: str) -> dict[str, Any]:
        found: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            found = found.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, Mapping) else {}
        return dict(found) if isinstance(found, Mapping) else {}

    @staticmethod
    def _type_of(schema: Mapping[str, Any]) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        if isinstance(kind, str):
            return kind
        if "properties" in schema or "required" in schema:
            return "object"
        return "array" if "items" in schema or "prefixItems" in schema else "string"

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        required = list(schema.get("required") or ())
        properties = schema.get("properties") or {}
        names = list(properties) if depth < _MAX_DEPTH else [name for name in properties if name in required]
        names += [name for name in required if name not in properties]
        return {name: self.write(properties.get(name, {}), depth + 1) for name in names}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        items = [self.write(item, depth + 1) for item in schema.get("prefixItems") or ()]
        usual = 2 if depth < _MAX_DEPTH else 0
        wanted = min(_MAX_ITEMS, max(int(schema.get("minItems", 0)), min(int(schema.get("maxItems", 2)), usual)))
        while len(items) < wanted:
            items.append(self.write(schema.get("items", {}), depth + 1))
        return items

    def _string(self, schema: Mapping[str, Any]) -> str:
        text = _FORMATS.get(str(schema.get("format"))) or "".join(self._draw.words(2))
        text = text.ljust(min(_MAX_CHARACTERS, int(schema.get("minLength", 0))), "x")
        return text[: int(schema.get("maxLength", len(text)))]

    def _number(self, schema: Mapping[str, Any]) -> int | float:
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        step = schema.get("multipleOf", 1)
        if low is None:
            low = 0 if high is None else high - 100 * step
        if high is None:
            high = low + 100 * step
        first = -(-low // step) * step
        if first == schema.get("exclusiveMinimum"):
            first += step
        last = high - step if "exclusiveMaximum" in schema else high
        steps = int((last - first) // step)
        if steps >= 0:
            return first + self._draw.integer(0, steps) * step  # type: ignore[no-any-return] # JSON numbers of the schema
        return (low + high) / 2  # type: ignore[no-any-return] # no multiple fits: the middle does


def _merge(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**left, **right}
    if "properties" in left and "properties" in right:
        merged["properties"] = {**left["properties"], **right["properties"]}
    if "required" in left and "required" in right:
        merged["required"] = [*left["required"], *right["required"]]
    return merged
