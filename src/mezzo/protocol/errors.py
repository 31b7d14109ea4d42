"""The public error tree: everything a client can be told, with its status, type, code and wording.

    ApiError
    ├── Unauthorized                     401  {"detail": ...}
    ├── Forbidden                        403  {"detail": ...}
    ├── NotFound                         404  {"detail": ...}
    ├── Contradiction                    409  {"detail": ...}
    ├── NotSignedIn                      401  {"detail": ...}
    ├── NotJson                          415  {"detail": ...}
    ├── RequestInvalid                   422  {"detail": [...]}
    ├── TooManyTries                     429  {"detail": ...}
    ├── TryLater                         503  {"detail": ...}
    └── DomainError                           {"object": "error", "message", "type", "param", "code", ...}
        ├── InvalidModel                 400  1500      RetiredModel            404  1500
        ├── InvalidArguments             400  3051      (ContextOverflow, FeatureNotEnabled)
        ├── MessageOrder                 400  3230
        ├── InvalidAssistantMessage      400  3240
        ├── InvalidFunctionCall          400  3280
        ├── InvalidTools                 400  -
        ├── InvalidFile                  400  3310
        ├── TooManyPages                 400  3730
        ├── InvalidDocument              400  3740
        ├── SpendLimitExceeded           402  -
        ├── IdempotencyConflict          409  -
        ├── PayloadTooLarge              413  -
        ├── RateLimited                  429  1300
        ├── InternalError                500  3000
        └── ServiceUnavailable           503  3800

Lower layers raise their own exceptions; each border maps them to this tree in one place.
Source: the reference API's error bodies as digested in docs/compatibility.md.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ApiError(Exception):
    """An answer to the client other than success."""

    status: ClassVar[int] = 500

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        return {"detail": self.message}

    def headers(self) -> dict[str, str]:
        """Return the response headers that belong to the error."""
        return {} if self.retry_after_s is None else {"retry-after": str(max(1, self.retry_after_s))}


class Unauthorized(ApiError):
    """No key (`Unauthorized`) or a key nobody has (`Invalid API Key`)."""

    status = 401


class Forbidden(ApiError):
    """A key that is good, and not for this."""

    status = 403


class NotFound(ApiError):
    """An object that does not exist, or not for this caller."""

    status = 404


class Contradiction(ApiError):
    """A change that contradicts what is there."""

    status = 409


class NotSignedIn(ApiError):
    """No session, or nothing that one could begin with."""

    status = 401


class NotJson(ApiError):
    """A body of another kind than `application/json`, as a form of another site could send it."""

    status = 415

    def __init__(self) -> None:
        super().__init__("The request needs the header `content-type: application/json`")


class RequestInvalid(ApiError):
    """The body does not fit the schema; `details` are the items of the 422 body."""

    status = 422

    def __init__(self, details: list[dict[str, Any]]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, d['loc']))}: {d['msg']}" for d in details[:3]))
        self.details = details

    def body(self) -> dict[str, Any]:
        return {"detail": self.details}


class TooManyTries(ApiError):
    """Somebody who failed too often waits until they may try again."""

    status = 429


class TryLater(ApiError):
    """What signing in needs, the identity provider or a free core, is not to be had now."""

    status = 503


class DomainError(ApiError):
    """An error in the model-side shape.

    `param` names the offending request field where one field is to blame, else None.
    """

    status = 400
    type: ClassVar[str] = "invalid_request_invalid_args"
    code: ClassVar[str | None] = "3051"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.param = param

    def body(self) -> dict[str, Any]:
        return {
            "object": "error",
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
            "raw_status_code": self.status,
        }


class InvalidModel(DomainError):
    """A model name that was never known or is not served here."""

    type = "invalid_model"
    code = "1500"

    def __init__(self, name: str) -> None:
        super().__init__(f"Invalid model: {name}")


class RetiredModel(DomainError):
    """A model name that was served once; the message names its replacement."""

    status = 404
    type = "invalid_model"
    code = "1500"

    def __init__(self, name: str, replacement: str) -> None:
        super().__init__(f"Invalid model: {name}. Use {replacement} instead.")


class InvalidArguments(DomainError):
    """Arguments that fit the schema but that this model or server cannot honour."""


class ContextOverflow(InvalidArguments):
    """The prompt does not fit the model's context; the wording is matched by many clients."""

    def __init__(self, num_prompt_tokens: int, max_context_length: int, num_draft_tokens: int = 0) -> None:
        super().__init__(
            f"Prompt contains {num_prompt_tokens} tokens and {num_draft_tokens} draft tokens, "
            f"too large for model with {max_context_length} maximum context length"
        )


class FeatureNotEnabled(InvalidArguments):
    """A feature the model does not have: `<feature> is not enabled for this model`."""

    def __init__(self, feature: str, *, param: str) -> None:
        verb = "are" if feature.endswith("s") else "is"
        super().__init__(f"{feature} {verb} not enabled for this model", param=param)


class MessageOrder(DomainError):
    """Roles or tool results in an order that the model was not trained on."""

    type = "invalid_request_message_order"
    code = "3230"


class InvalidAssistantMessage(DomainError):
    """An assistant message without content and calls, or a misplaced prefix."""

    type = "invalid_request_assistant_message"
    code = "3240"


class InvalidFunctionCall(DomainError):
    """A malformed tool call id or function name."""

    type = "invalid_function_call"
    code = "3280"


class InvalidTools(DomainError):
    """A tool that this endpoint does not run, or too many of them."""

    type = "invalid_tools"
    code = None


class InvalidFile(DomainError):
    """A file or URL of a message that cannot be fetched, decoded, or is over a limit."""

    type = "invalid_request_file"
    code = "3310"


class TooManyPages(DomainError):
    """A document with more pages than the server reads; `where` names its chunk."""

    type = "document_parser_too_many_pages"
    code = "3730"

    def __init__(self, num_pages: int, max_pages: int, *, where: str) -> None:
        super().__init__(
            f"{where}: This document has {num_pages} pages, "
            f"which is more than the maximum allowed of {max_pages}.",
            param="messages",
        )


class InvalidDocument(DomainError):
    """A document that is broken, encrypted, of no known kind, or takes too long to read."""

    type = "document_parser_invalid_file"
    code = "3740"


class PayloadTooLarge(DomainError):
    """The request body is over the server's limit."""

    status = 413
    type = "invalid_request_error"
    code = None


class SpendLimitExceeded(DomainError):
    """What the request could cost is more than a monthly spending limit leaves."""

    status = 402
    type = "spend_limit_exceeded"
    code = None


class IdempotencyConflict(DomainError):
    """An `Idempotency-Key` that stands for another call, or for one that is still being answered."""

    status = 409
    type = "idempotency_error"
    code = None

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message, param="Idempotency-Key", retry_after_s=retry_after_s)


class RateLimited(DomainError):
    """The caller's own limit is used up. Never used for the server being full.

    retry_after_s: None where the wait is longer than any client should sleep.
    """

    status = 429
    type = "rate_limited"
    code = "1300"

    def __init__(self, message: str = "Rate limit exceeded", *, retry_after_s: int | None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class InternalError(DomainError):
    """A fault of ours."""

    status = 500
    type = "internal_error"
    code = "3000"

    def __init__(self) -> None:
        super().__init__("Internal error")


class ServiceUnavailable(DomainError):
    """The server is full, starting, stopping, or lost its engine: try again later."""

    status = 503
    type = "internal_server_error"
    code = "3800"

    def __init__(self, message: str = "Service unavailable.", *, retry_after_s: int = 1) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
