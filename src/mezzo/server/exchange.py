"""One HTTP exchange from first byte to last: its names, what became known, one log record, one count.

Handlers and the gateway fill in an `Exchange` as they learn things; whatever happens, the middleware closes
it once, when the answer was sent or nobody is left to send it to.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mezzo.backends.base import PredictionCounts
from mezzo.kit.ids import new_correlation_id, new_request_id
from mezzo.server.metrics import Metrics

Outcome = Literal["finished", "aborted", "failed", "refused"]

CORRELATION_HEADER = "mistral-correlation-id"
# What proxies write when the client left before it was answered. Never sent: nobody is there to read it.
CLIENT_CLOSED_REQUEST = 499
_SCOPE_KEY = "mezzo.exchange"
_QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})

_log = structlog.get_logger("mezzo.server")


@dataclass(slots=True)
class Exchange:
    """What is known of one exchange so far.

    request_id       32 hexadecimal digits: the answer's `id`, and the request's name in every log
    correlation_id   the value of the header `mistral-correlation-id`
    started_s        time.perf_counter() at its beginning
    headers          sent with the answer, whatever the answer is; limit_headers: with a good one
    model            the name that was asked for; model_id: the card that answers, once known
    is_estimated     the counts are estimates: an upstream was cut off before it reported its own
    outcome          set by the gateway for requests that reached a backend, else told from the status
    parts_s          seconds that its way through authentication, limits and books took, by part
    prompt, completion
                     set only when the operator wants them in the logs
    """

    method: str
    path: str
    request_id: str = field(default_factory=new_request_id)
    correlation_id: str = field(default_factory=new_correlation_id)
    started_s: float = field(default_factory=time.perf_counter)
    headers: dict[str, str] = field(default_factory=dict)
    limit_headers: dict[str, str] = field(default_factory=dict)
    status: int = CLIENT_CLOSED_REQUEST
    caller: str | None = None
    workspace_id: str | None = None
    model: str | None = None
    model_id: str | None = None
    weights: str | None = None
    is_stream: bool = False
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    num_cached_tokens: int = 0
    num_image_tokens: int = 0
    is_estimated: bool = False
    prediction: PredictionCounts | None = None
    ttft_s: float | None = None
    outcome: Outcome | None = None
    prompt: Any = None
    completion: Any = None
    parts_s: dict[str, float] = field(default_factory=dict)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the exchange began."""
        return time.perf_counter() - self.started_s

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add what happens inside the block to a part's time."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.parts_s[part] = self.parts_s.get(part, 0.0) + time.perf_counter() - began_s

    def settled_outcome(self) -> Outcome:
        """Return how it ended: as the gateway said, else as the status tells."""
        if self.outcome is not None:
            return self.outcome
        if self.status == CLIENT_CLOSED_REQUEST:
            return "aborted"
        if self.status == 500:
            return "failed"
        return "refused" if self.status >= 400 else "finished"


def exchange_of(request: Request) -> Exchange:
    """Return the exchange that a request belongs to."""
    exchange: Exchange = request.scope[_SCOPE_KEY]
    return exchange


class ExchangeMiddleware:
    """The outermost layer: opens an exchange, names it in the answer's headers, and closes it once."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, server_timing: bool = False) -> None:
        self._app = app
        self._metrics = metrics
        self._server_timing = server_timing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(method=scope["method"], path=scope["path"])
        # HEAD is GET without the body, which the HTTP protocol below leaves out: it looks at its own scope.
        method = "GET" if exchange.method == "HEAD" else exchange.method
        scope = {**scope, "method": method, _SCOPE_KEY: exchange}

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                named = {CORRELATION_HEADER: exchange.correlation_id, **exchange.headers}
                if self._server_timing:
                    named["server-timing"] = ", ".join(
                        f"{part};dur={seconds * 1000:.3f}" for part, seconds in exchange.parts_s.items()
                    )
                pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]
                message = {**message, "headers": [*message["headers"], *pairs]}
            await send(message)

        self._metrics.in_flight.inc()
        try:
            with structlog.contextvars.bound_contextvars(request_id=exchange.request_id):
                await self._app(scope, receive, send_named)
        finally:
            self._metrics.in_flight.dec()
            self._close(exchange, route=getattr(scope.get("route"), "path", "unmatched"))

    def _close(self, exchange: Exchange, route: str) -> None:
        outcome = exchange.settled_outcome()
        self._metrics.count_request(
            route=route,
            model=exchange.model_id or "",
            status=exchange.status,
            outcome=outcome,
            duration_s=exchange.elapsed_s,
        )
        if route not in _QUIET_ROUTES:
            _log.info("request", **_record(exchange, route, outcome))


def _record(exchange: Exchange, route: str, outcome: Outcome) -> dict[str, Any]:
    record: dict[str, Any] = {
        "request_id": exchange.request_id,
        "correlation_id": exchange.correlation_id,
        "method": exchange.method,
        "route": route,
        "status": exchange.status,
        "outcome": outcome,
        "duration_s": round(exchange.elapsed_s, 6),
        "caller": exchange.caller,
        "workspace": exchange.workspace_id,
    }
    if exchange.model is not None:
        record |= {
            "model": exchange.model,
            "model_id": exchange.model_id,
            "weights": exchange.weights,
            "stream": exchange.is_stream,
            "prompt_tokens": exchange.num_prompt_tokens,
            "completion_tokens": exchange.num_completion_tokens,
            "cached_tokens": exchange.num_cached_tokens,
            "ttft_s": None if exchange.ttft_s is None else round(exchange.ttft_s, 6),
        }
    if exchange.is_estimated:
        record["is_estimated"] = True
    if exchange.prediction is not None:
        record |= {
            "accepted_prediction_tokens": exchange.prediction.num_accepted,
            "rejected_prediction_tokens": exchange.prediction.num_rejected,
        }
    if exchange.prompt is not None:
        record |= {"prompt": exchange.prompt, "completion": exchange.completion}
    return record
