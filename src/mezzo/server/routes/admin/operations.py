"""How the endpoints of the admin API are described at /openapi.json, from the types that they use."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from mezzo.protocol.admin.answers import Answer
from mezzo.protocol.admin.fields import QueryModel
from mezzo.server.openapi import REF, answer_schema

_SECURITY: list[dict[str, list[str]]] = [{"admin_key": []}, {"bearer": []}]


def operation(
    summary: str,
    answer: type[Answer] | list[type[Answer]] | None,
    *,
    path_id: str | None = None,
    query: type[QueryModel] | None = None,
    body: type[BaseModel] | None = None,
) -> dict[str, Any]:
    """Return the description of an endpoint as the arguments of its route.

    answer: what a success says; a list of one type for an array, None for a 204. path_id: the id in the path.
    """
    parameters = [] if path_id is None else [_parameter("path", path_id, {"type": "string"})]
    if query is not None:
        schema = query.model_json_schema()
        parameters += [_parameter("query", name, of) for name, of in schema["properties"].items()]
    extra: dict[str, Any] = {"security": _SECURITY, "parameters": parameters}
    if body is not None:
        extra["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": REF + body.__name__}}},
        }
    status = 204 if answer is None else 200
    return {
        "summary": summary,
        "status_code": status,
        "openapi_extra": extra,
        "responses": {status: _success(answer), **_refusals(path_id, query, body)},
    }


def _success(answer: type[Answer] | list[type[Answer]] | None) -> dict[str, Any]:
    if answer is None:
        return {"description": "Done"}
    if isinstance(answer, list):
        schema: dict[str, Any] = {"type": "array", "items": {"$ref": REF + answer[0].__name__}}
    else:
        schema = {"$ref": REF + answer.__name__}
    return {"description": "Done", "content": {"application/json": {"schema": schema}}}


def _refusals(path_id: str | None, query: object, body: object) -> dict[int, dict[str, Any]]:
    refusals = {
        401: answer_schema("No key, or one that nobody has", "DetailError"),
        403: answer_schema("A key that is no admin key", "DetailError"),
    }
    refusals[503] = answer_schema("The database does not answer", "DomainError")
    if path_id is not None or body is not None:
        refusals[404] = answer_schema("No such object in the organization", "DetailError")
        refusals[409] = answer_schema("The change contradicts what is there", "DetailError")
    if query is not None or body is not None:
        refusals[422] = answer_schema("Body or query do not fit", "ValidationError")
    return refusals


def _parameter(place: str, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}
