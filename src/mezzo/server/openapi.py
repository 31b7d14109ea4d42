"""The description of the API at /openapi.json, made from the types that the server really uses.

Bodies are read and written by our own code, so FastAPI knows the routes and nothing about their types; this
file adds those: requests from pydantic, answers from msgspec, errors from the tree in protocol/errors.py.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mezzo import __version__
from mezzo.protocol.admin.schemas import ANSWERS, BODIES
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.fim import FimCompletionRequest
from mezzo.protocol.models import ModelCard, ModelList
from mezzo.protocol.response import ChatCompletionChunk, ChatCompletionResponse
from mezzo.protocol.sign_in import SIGN_IN_ANSWERS, SIGN_IN_BODIES

REF = "#/components/schemas/"

_ERROR_SCHEMAS: dict[str, Any] = {
    "DomainError": {
        "type": "object",
        "required": ["object", "message", "type", "param", "code", "raw_status_code"],
        "properties": {
            "object": {"const": "error"},
            "message": {"type": "string"},
            "type": {"type": "string"},
            "param": {"type": ["string", "null"]},
            "code": {"type": ["string", "null"], "pattern": "^[0-9]+$"},
            "raw_status_code": {"type": "integer"},
        },
    },
    "DetailError": {
        "type": "object",
        "required": ["detail"],
        "properties": {"detail": {"type": "string"}},
    },
    "ValidationError": {
        "type": "object",
        "required": ["detail"],
        "properties": {
            "detail": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["type", "loc", "msg"],
                    "properties": {
                        "type": {"type": "string"},
                        "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                        "msg": {"type": "string"},
                        "input": {},
                        "ctx": {"type": "object"},
                    },
                },
            }
        },
    },
    "RouteError": {
        "type": "object",
        "required": ["message", "request_id"],
        "properties": {"message": {"type": "string"}, "request_id": {"type": "string"}},
    },
}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REF + name}}}


def answer_schema(description: str, name: str) -> dict[str, Any]:
    """Return the description of an answer whose body has the schema `name`."""
    return {"description": description, "content": _json(name)}


_UNAUTHORIZED = {401: answer_schema("No key, or one that nobody has", "DetailError")}
REFUSALS = {
    **_UNAUTHORIZED,
    404: answer_schema("The model is retired", "DomainError"),
    408: answer_schema("The body did not arrive in time", "DomainError"),
    413: answer_schema("The body is too large", "DomainError"),
    422: answer_schema("The body does not fit the schema", "ValidationError"),
    429: answer_schema("The key's rate limit is used up", "DomainError"),
}
_SECURED: dict[str, Any] = {"security": [{"bearer": []}]}

_COMPLETION: dict[int, Any] = {
    200: {
        "description": "The answer, or with `stream` its events",
        "content": {
            **_json("ChatCompletionResponse"),
            "text/event-stream": {"schema": {"$ref": REF + "ChatCompletionChunk"}},
        },
    },
    400: answer_schema("The request cannot be honoured", "DomainError"),
    **REFUSALS,
    500: answer_schema("A fault of the server", "DomainError"),
    503: answer_schema("The server is full, starting or stopping", "DomainError"),
}

CHAT_OPERATION: dict[str, Any] = {
    "summary": "Answer a conversation",
    "operation_id": "create_chat_completion",
    "openapi_extra": {
        **_SECURED,
        "requestBody": {"required": True, "content": _json("ChatCompletionRequest")},
    },
    "responses": _COMPLETION,
}

FIM_OPERATION: dict[str, Any] = {
    "summary": "Fill in the middle, with weights that were trained to",
    "operation_id": "create_fim_completion",
    "openapi_extra": {
        **_SECURED,
        "requestBody": {"required": True, "content": _json("FimCompletionRequest")},
    },
    "responses": _COMPLETION,
}


MODELS_OPERATION: dict[str, Any] = {
    "summary": "List the models",
    "operation_id": "list_models",
    "openapi_extra": {
        **_SECURED,
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": {"type": "string"},
                "description": text,
            }
            for name, text in (
                ("model", "Only the card of this name"),
                ("provider", "Only cards of this owner"),
            )
        ],
    },
    "responses": {200: answer_schema("One card for every name", "ModelList"), **_UNAUTHORIZED},
}

MODEL_OPERATION: dict[str, Any] = {
    "summary": "Get the card of one name",
    "operation_id": "retrieve_model",
    "openapi_extra": {
        **_SECURED,
        "parameters": [{"name": "model_id", "in": "path", "required": True, "schema": {"type": "string"}}],
    },
    "responses": {
        200: answer_schema("The card", "ModelCard"),
        **_UNAUTHORIZED,
        404: answer_schema("No such model", "DetailError"),
    },
}


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of `app`."""
    document = get_openapi(
        title="mezzo",
        version=__version__,
        description="The Mistral chat completions API, self-hosted.",
        routes=app.routes,
    )
    components = document.setdefault("components", {})
    components["schemas"] = _schemas()
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "admin_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    return document


def _schemas() -> dict[str, Any]:
    bodies: tuple[type[BaseModel], ...] = (
        ChatCompletionRequest,
        FimCompletionRequest,
        *BODIES,
        *SIGN_IN_BODIES,
    )
    _, requests = models_json_schema(
        [(model, "validation") for model in bodies],
        ref_template=REF + "{model}",
    )
    _, answers = msgspec.json.schema_components(
        [ChatCompletionResponse, ChatCompletionChunk, ModelCard, ModelList, *ANSWERS, *SIGN_IN_ANSWERS],
        ref_template=REF + "{name}",
    )
    return {**requests["$defs"], **answers, **_ERROR_SCHEMAS}
