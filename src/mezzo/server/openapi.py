"""The description of the API at /openapi.json, made from the types that the server really uses.

Bodies are read and written by our own code, so FastAPI knows the routes and nothing about their types; this
file adds those: requests from pydantic, answers from msgspec, errors from the tree in protocol/errors.py.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from mezzo import __version__
from mezzo.protocol.base import WireModel
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.fim import FimCompletionRequest
from mezzo.protocol.models import ModelCard, ModelList
from mezzo.protocol.response import ChatCompletionChunk, ChatCompletionResponse
from mezzo.protocol.sign_in import (
    AcceptInvitationRequest,
    NoFields,
    PasswordChange,
    SessionAnswer,
    SignInRequest,
)

_REF = "#/components/schemas/"

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
    return {"application/json": {"schema": {"$ref": _REF + name}}}


def _answer(description: str, name: str) -> dict[str, Any]:
    return {"description": description, "content": _json(name)}


_UNAUTHORIZED = {401: _answer("No key, or one that nobody has", "DetailError")}
_REFUSALS = {
    **_UNAUTHORIZED,
    404: _answer("The model is retired", "DomainError"),
    408: _answer("The body did not arrive in time", "DomainError"),
    413: _answer("The body is too large", "DomainError"),
    422: _answer("The body does not fit the schema", "ValidationError"),
    429: _answer("The key's rate limit is used up", "DomainError"),
}
_SECURED: dict[str, Any] = {"security": [{"bearer": []}]}

_COMPLETION: dict[int, Any] = {
    200: {
        "description": "The answer, or with `stream` its events",
        "content": {
            **_json("ChatCompletionResponse"),
            "text/event-stream": {"schema": {"$ref": _REF + "ChatCompletionChunk"}},
        },
    },
    400: _answer("The request cannot be honoured", "DomainError"),
    **_REFUSALS,
    500: _answer("A fault of the server", "DomainError"),
    503: _answer("The server is full, starting or stopping", "DomainError"),
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


def _session_operation(
    summary: str, operation_id: str, body: type[WireModel] | None, responses: dict[int, Any]
) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if body is not None:
        schema = {"application/json": {"schema": body.model_json_schema()}}
        extra["requestBody"] = {"required": True, "content": schema}
        responses = {
            **responses,
            403: _answer("Another site's page sent it, or it may not be done", "DetailError"),
            415: _answer("The body is not application/json", "DetailError"),
            422: _answer("The body does not fit the schema", "ValidationError"),
        }
    return {
        "summary": summary,
        "operation_id": operation_id,
        "openapi_extra": extra,
        "responses": responses,
    }


_NOT_SIGNED_IN = {401: _answer("No session, or nothing that one could begin with", "DetailError")}
_SESSION = {200: _answer("Who is signed in", "SessionAnswer")}
_LIMITED = {
    429: _answer("Too many attempts failed", "DetailError"),
    503: _answer("Too many sign in at this moment", "DetailError"),
}
_NO_BODY = {204: {"description": "Done"}}

SIGN_IN_OPERATION = _session_operation(
    "Sign in with a password", "sign_in", SignInRequest, {**_SESSION, **_NOT_SIGNED_IN, **_LIMITED}
)
SIGN_OUT_OPERATION = _session_operation("Sign out", "sign_out", NoFields, _NO_BODY)
SESSION_OPERATION = _session_operation(
    "Who is signed in", "read_session", None, {**_SESSION, **_NOT_SIGNED_IN}
)
ACCEPT_INVITATION_OPERATION = _session_operation(
    "Join by an invitation and sign in",
    "accept_invitation",
    AcceptInvitationRequest,
    {
        **_SESSION,
        404: _answer("No such invitation, or not any more", "DetailError"),
        409: _answer("The address has an account by now", "DetailError"),
        503: _LIMITED[503],
    },
)
PASSWORD_OPERATION = _session_operation(
    "Change the password; other sessions end",
    "change_password",
    PasswordChange,
    {
        **_NO_BODY,
        **_NOT_SIGNED_IN,
        409: _answer("The account has no password", "DetailError"),
        **_LIMITED,
    },
)
_NO_PROVIDER = {
    404: _answer("Single sign-on is not set up", "DetailError"),
    503: _answer("The identity provider cannot be used", "DetailError"),
}
OIDC_SIGN_IN_OPERATION = _session_operation(
    "Go to the identity provider", "oidc_sign_in", None, {302: {"description": "There"}, **_NO_PROVIDER}
)
OIDC_CALLBACK_OPERATION = _session_operation(
    "Come back from the identity provider",
    "oidc_callback",
    None,
    {
        303: {"description": "Signed in"},
        **_NOT_SIGNED_IN,
        403: _answer("Nobody here has that identity", "DetailError"),
        **_NO_PROVIDER,
    },
)

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
    "responses": {200: _answer("One card for every name", "ModelList"), **_UNAUTHORIZED},
}

MODEL_OPERATION: dict[str, Any] = {
    "summary": "Get the card of one name",
    "operation_id": "retrieve_model",
    "openapi_extra": {
        **_SECURED,
        "parameters": [{"name": "model_id", "in": "path", "required": True, "schema": {"type": "string"}}],
    },
    "responses": {
        200: _answer("The card", "ModelCard"),
        **_UNAUTHORIZED,
        404: _answer("No such model", "DetailError"),
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
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return document


def _schemas() -> dict[str, Any]:
    _, requests = models_json_schema(
        [(ChatCompletionRequest, "validation"), (FimCompletionRequest, "validation")],
        ref_template=_REF + "{model}",
    )
    _, answers = msgspec.json.schema_components(
        [ChatCompletionResponse, ChatCompletionChunk, ModelCard, ModelList, SessionAnswer],
        ref_template=_REF + "{name}",
    )
    return {**requests["$defs"], **answers, **_ERROR_SCHEMAS}
