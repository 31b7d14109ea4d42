"""How `/auth/*` is described at /openapi.json."""

from __future__ import annotations

from typing import Any

from mezzo.protocol.base import WireModel
from mezzo.protocol.sign_in import (
    AcceptInvitationRequest,
    NoFields,
    PasswordChange,
    SessionAnswer,
    SignInRequest,
)
from mezzo.server.openapi import REF, answer_schema


def _operation(
    summary: str, success: dict[int, Any], refusals: dict[int, str], body: type[WireModel] | None = None
) -> dict[str, Any]:
    """Return the description of an endpoint as the arguments of its route. refusals: why, by status."""
    responses = {status: answer_schema(why, "DetailError") for status, why in refusals.items()}
    if body is None:
        return {"summary": summary, "responses": {**success, **responses}}
    schema = {"application/json": {"schema": {"$ref": REF + body.__name__}}}
    return {
        "summary": summary,
        "openapi_extra": {"requestBody": {"required": True, "content": schema}},
        "responses": {
            **success,
            403: answer_schema("Another site's page sent it", "DetailError"),
            415: answer_schema("The body is not application/json", "DetailError"),
            422: answer_schema("The body does not fit the schema", "ValidationError"),
            **responses,
        },
    }


_SESSION = {200: answer_schema("Who is signed in; the cookie is set", SessionAnswer.__name__)}
_DONE = {204: {"description": "Done"}}
_LIMITED = {429: "Too many attempts failed", 503: "Too many people sign in at this moment"}
_NO_PROVIDER = {404: "Single sign-on is not set up", 503: "The identity provider cannot be used"}

SIGN_IN = _operation(
    "Sign in with a password",
    _SESSION,
    {401: "The email or the password is wrong", **_LIMITED},
    SignInRequest,
)
SIGN_OUT = _operation("Sign out", _DONE, {}, NoFields)
SESSION = _operation("Who is signed in", _SESSION, {401: "Nobody"})
ACCEPT_INVITATION = _operation(
    "Join by an invitation and sign in",
    _SESSION,
    {
        404: "No such invitation, or not any more",
        409: "The address has an account by now",
        503: _LIMITED[503],
    },
    AcceptInvitationRequest,
)
PASSWORD = _operation(
    "Change the password; other sessions end",
    _DONE,
    {
        401: "Nobody is signed in",
        403: "The old password is wrong, or another site's page sent it",
        409: "The account has no password",
        **_LIMITED,
    },
    PasswordChange,
)
OIDC_SIGN_IN = _operation(
    "Go to the identity provider",
    {302: {"description": "There"}},
    {**_NO_PROVIDER, 422: "return_to is no path of this server"},
)
OIDC_CALLBACK = _operation(
    "Come back from the identity provider",
    {303: {"description": "Signed in; the cookie is set"}},
    {401: "Refused, or too late", 403: "No account for this identity", **_NO_PROVIDER},
)
