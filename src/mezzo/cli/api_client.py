"""The chat completions API as `mezzo chat` uses it: one streamed request at a time."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx


class RequestFailed(Exception):
    """A request that was not answered. `str(error)` is one line, `hint` what to do or None."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer ended, and what it used."""

    finish_reason: str
    num_prompt_tokens: int
    num_completion_tokens: int


class ApiClient:
    """A server and the key to it. Close it, or use it as a context manager."""

    def __init__(self, base_url: str, api_key: str, *, trust_env: bool) -> None:
        """trust_env: go through the environment's proxies; wrong for a server on this machine."""
        self.base_url = base_url
        self._http = httpx.Client(
            base_url=base_url,
            headers={"authorization": f"Bearer {api_key}"},
            # A long prompt on a slow machine takes minutes to its first token; the stream is kept alive then.
            timeout=httpx.Timeout(10.0, read=300.0),
            trust_env=trust_env,
        )

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.close()

    def model_names(self) -> list[str]:
        """Return every name the server answers to. Raises: RequestFailed."""
        try:
            response = self._http.get("/v1/models")
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if response.status_code != 200:
            raise _refused(response)
        try:
            return [card["id"] for card in response.json()["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise RequestFailed(f"{self.base_url} answers, but is not a chat completions API") from error

    def stream(self, request: Mapping[str, Any]) -> Generator[Piece | Ending]:
        """Send a request and yield its answer as it is generated; the last item is the Ending.

        Closing the iterator early closes the connection, which stops the generation. Raises: RequestFailed.
        """
        try:
            with self._http.stream(
                "POST", "/v1/chat/completions", json={**request, "stream": True}
            ) as response:
                if response.status_code != 200:
                    response.read()
                    raise _refused(response)
                yield from _read_events(response)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> RequestFailed:
        match error:
            case httpx.ConnectError() | httpx.ConnectTimeout():
                return RequestFailed(
                    f"nothing answers at {self.base_url}",
                    hint="Start the server with `mezzo serve`, or name another one with --url.",
                )
            case httpx.TimeoutException():
                return RequestFailed("the server did not answer in time", hint="Look at the server's log.")
        return RequestFailed("the connection to the server was lost", hint="Look at the server's log.")


def _read_events(response: httpx.Response) -> Generator[Piece | Ending]:
    finish_reason: str | None = None
    usage: dict[str, int] = {}
    for line in response.iter_lines():
        if not line.startswith("data: "):
            continue  # a blank line between events, or a comment that keeps the connection alive
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            break
        try:
            chunk = json.loads(data)
            choice = chunk["choices"][0]
            text = choice["delta"].get("content") or ""
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise RequestFailed("the server sent something that is not a part of an answer") from error
        if text:
            yield Piece(text)
        finish_reason = choice.get("finish_reason") or finish_reason
        usage = chunk.get("usage") or usage
    if finish_reason is None:
        raise RequestFailed("the connection to the server was lost", hint="Look at the server's log.")
    if finish_reason == "error":
        raise RequestFailed("the server failed while it was answering", hint="Try again; its log says why.")
    yield Ending(finish_reason, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))


def _refused(response: httpx.Response) -> RequestFailed:
    message = _error_text(response)
    match response.status_code:
        case 401:
            return RequestFailed(
                "the server does not accept this API key",
                hint="Give the key that `mezzo serve` printed: --api-key KEY, or MEZZO_API_KEY.",
            )
        case 400 if message.startswith("Invalid model"):
            return RequestFailed(message, hint="`mezzo models` lists the names.")
        case 429:
            return RequestFailed(f"{message}{_wait(response)}")
        case 503:
            return RequestFailed(f"the server is busy or starting: {message}{_wait(response)}")
    return RequestFailed(f"the server refused the request ({response.status_code}): {message}")


def _wait(response: httpx.Response) -> str:
    seconds = response.headers.get("retry-after", "")
    return f"; try again in {seconds} s" if seconds.isdigit() else ""


def _error_text(response: httpx.Response) -> str:
    """Return the message of any of the API's error bodies, in one line."""
    try:
        body = response.json()
    except ValueError:
        body = None
    message = body.get("message", body.get("detail")) if isinstance(body, dict) else None
    if isinstance(message, list):
        message = "; ".join(_detail_text(item) for item in message)
    text = message if isinstance(message, str) else response.text or response.reason_phrase
    return " ".join(text.split())[:300]


def _detail_text(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    where = ".".join(str(part) for part in item.get("loc", []) if part != "body")
    return f"{where}: {item.get('msg')}"
