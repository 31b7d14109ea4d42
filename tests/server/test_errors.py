"""Every error that a client can be told, provoked through the API, in the shape that the API gives it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from structlog.testing import capture_logs

from mezzo.backends.base import BackendUnavailable
from mezzo.server import incoming
from tests.fakes import FakeBackend, Script
from tests.server.live import KEY, MODEL, LiveServer, assert_error, chat, live_server, wait_for_record

TOOL_CALL = {"id": "abcdefghi", "function": {"name": "f", "arguments": "{}"}}


def messages(*roles_and_fields: object) -> dict:
    return {"model": MODEL, "messages": list(roles_and_fields)}


USER = {"role": "user", "content": "Hi"}

DOMAIN_ERRORS = {
    "unknown model": ({**chat(), "model": "medium-9"}, "invalid_model", "1500", "Invalid model: medium-9"),
    "empty model": ({**chat(), "model": ""}, "invalid_model", "1500", "Invalid model: "),
    "model without weights": (
        {**chat(), "model": "mistral-medium-2508"},
        "invalid_model",
        "1500",
        "Invalid model: mistral-medium-2508",
    ),
    "no messages": (
        messages(),
        "invalid_request_message_order",
        "3230",
        "Conversation must have at least one message",
    ),
    "assistant last": (
        messages(USER, {"role": "assistant", "content": "Hello"}),
        "invalid_request_message_order",
        "3230",
        "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant",
    ),
    "empty assistant": (
        messages(USER, {"role": "assistant", "content": ""}, USER),
        "invalid_request_assistant_message",
        "3240",
        "Assistant message must have either content or tool_calls, but not none.",
    ),
    "bad tool call id": (
        messages(
            USER,
            {"role": "assistant", "tool_calls": [{**TOOL_CALL, "id": "x"}]},
            {"role": "tool", "tool_call_id": "x", "content": "1"},
        ),
        "invalid_function_call",
        "3280",
        "Tool call id was x but must be a-z, A-Z, 0-9, with a length of 9.",
    ),
    "hosted tool": (
        chat(tools=[{"type": "web_search"}]),
        "invalid_tools",
        None,
        "WebSearchTool connector is not supported",
    ),
    "logprobs": (
        chat(logprobs=True),
        "invalid_request_invalid_args",
        "3051",
        "Logprobs are not enabled for this model",
    ),
    "context": (
        chat("x" * 5000),
        "invalid_request_invalid_args",
        "3051",
        "Prompt contains 5000 tokens and 0 draft tokens, "
        "too large for model with 4096 maximum context length",
    ),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", DOMAIN_ERRORS)
def test_domain_error(server: LiveServer, case: str, stream: bool) -> None:
    body, type_, code, message = DOMAIN_ERRORS[case]
    assert_error(server.post({**body, "stream": stream}), 400, type=type_, code=code, message=message)


def test_image_is_refused_by_a_model_whose_weights_are_blind(server: LiveServer) -> None:
    chunk = {"type": "image_url", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    body = assert_error(
        server.post(messages({"role": "user", "content": [chunk]})), 400, code="3051", param="messages"
    )
    assert "is not enabled for this model" in body["message"]


class TestAuthentication:
    @pytest.mark.parametrize("value", [None, "", "Basic abc", KEY, "Bearer"])
    def test_no_bearer_token(self, server: LiveServer, value: str | None) -> None:
        headers = {} if value is None else {"authorization": value}
        for method, path in (
            ("POST", "/v1/chat/completions"),
            ("GET", "/v1/models"),
            ("GET", "/v1/models/x"),
        ):
            response = httpx.request(method, server.url + path, headers=headers, trust_env=False)
            assert_error(response, 401, detail="Unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize("key", ["wrong", KEY + "x", KEY[:-1], KEY.upper(), "clé"])
    def test_key_nobody_has(self, server: LiveServer, key: str) -> None:
        response = server.post(chat(), headers={"authorization": f"Bearer {key}".encode()})
        assert_error(response, 401, detail="Invalid API Key")

    def test_two_authorization_headers_are_none(self, server: LiveServer) -> None:
        headers = [("authorization", f"Bearer {KEY}"), ("authorization", "Bearer other")]
        response = httpx.post(
            server.url + "/v1/chat/completions", json=chat(), headers=headers, trust_env=False
        )
        assert_error(response, 401, detail="Unauthorized")

    def test_scheme_is_read_in_any_case(self, server: LiveServer) -> None:
        assert server.post(chat(), headers={"authorization": f"bEARER {KEY}"}).status_code == 200

    def test_is_asked_before_the_body_is_read(self, server: LiveServer) -> None:
        response = server.post(content=b"{", headers={"authorization": "Bearer wrong"})
        assert_error(response, 401)

    def test_does_not_trust_the_host_header(self, server: LiveServer) -> None:
        request = b"GET /v1/models HTTP/1.1\r\nHost: x/healthz?\r\nConnection: close\r\n\r\n"
        assert exchange_bytes(server, request).startswith(b"HTTP/1.1 401")


class TestOrderOfChecks:
    """Each request here has every mistake from its own on; the first one is what is told."""

    def test_schema_before_model(self, server: LiveServer) -> None:
        assert_error(server.post({"model": "nope", "messages": [], "temperature": 9}), 422)

    def test_model_before_messages(self, server: LiveServer) -> None:
        assert_error(server.post({"model": "nope", "messages": [], "logprobs": True}), 400, code="1500")

    def test_messages_before_features(self, server: LiveServer) -> None:
        assert_error(server.post({"model": MODEL, "messages": [], "logprobs": True}), 400, code="3230")

    def test_features_before_context(self, server: LiveServer) -> None:
        body = assert_error(server.post(chat("x" * 5000, logprobs=True)), 400, code="3051")
        assert body["message"] == "Logprobs are not enabled for this model"

    def test_rate_limit_after_model_and_before_messages(self) -> None:
        with live_server(requests_per_minute=0) as live:
            assert_error(live.post({"model": "nope", "messages": []}), 400, code="1500")
            assert_error(live.post({"model": MODEL, "messages": []}), 429, code="1300")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1"),
        ("GET", "/v1/chat/completions"),
        ("HEAD", "/v1/chat/completions"),
        ("DELETE", "/v1/chat/completions"),
        ("OPTIONS", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "/v1//chat/completions"),
        ("POST", "/V1/chat/completions"),
        ("GET", "/v1/models/"),
        ("DELETE", "/v1/models/mistral-medium-2505"),
        ("PATCH", "/v1/models"),
        ("GET", "/docs"),
        ("GET", "/%2e%2e/etc/passwd"),
        ("PUT", "/coffee"),
    ],
)
def test_unknown_path_or_method(server: LiveServer, method: str, path: str) -> None:
    # Also without a key: that there is no such path is no secret.
    response = httpx.request(method, server.url + path, trust_env=False)
    if method == "HEAD":
        assert response.status_code in {404, 405}
        assert response.content == b""
    else:
        assert_error(response, 404, message="no Route matched with those values")


def test_refused_methods_and_paths_are_one_metric_label(server: LiveServer) -> None:
    for number in range(3):
        httpx.get(f"{server.url}/nothing/{number}", trust_env=False)
    text = httpx.get(server.url + "/metrics", trust_env=False).text
    assert "/nothing" not in text
    assert server.metric("mezzo_requests_total", route="unmatched", status="404") >= 3


@pytest.fixture(scope="module")
def small() -> Iterator[LiveServer]:
    with live_server(max_body_bytes=1000) as live:
        yield live


class TestBodySize:
    def test_announced_length_is_refused_before_the_body_comes(self, small: LiveServer) -> None:
        head = request_head("Content-Length: 1001\r\n")
        answer = exchange_bytes(small, head + b"Connection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413")

    def test_large_body_gets_the_apis_error_and_the_connection_lives(self, small: LiveServer) -> None:
        for _ in range(2):
            body = assert_error(
                small.post(chat("x" * 3_000_000)), 413, type="invalid_request_error", code=None
            )
            assert body["message"] == "Request body is larger than 1000 bytes"
        assert small.post(chat()).status_code == 200

    def test_chunked_body_is_counted_as_it_comes(self, small: LiveServer) -> None:
        def parts() -> Iterator[bytes]:
            for _ in range(200):
                yield b" " * 1000

        assert_error(small.post(content=parts()), 413)

    def test_body_of_exactly_the_limit_is_read(self, small: LiveServer) -> None:
        body = json.dumps(chat()).encode()
        assert small.post(content=body.ljust(1000)).status_code == 200
        assert_error(small.post(content=body.ljust(1001)), 413)

    def test_chunked_body_within_the_limit_is_read(self, small: LiveServer) -> None:
        data = json.dumps(chat()).encode()
        assert small.post(content=iter([data[:5], data[5:]])).status_code == 200

    def test_body_longer_than_announced_is_cut_there(self, small: LiveServer) -> None:
        head = request_head("Content-Length: 5\r\n")
        answer = exchange_bytes(small, head + b"\r\n" + json.dumps(chat()).encode())
        assert answer.startswith(b"HTTP/1.1 4")
        assert b"HTTP/1.1 200" not in answer


def test_large_body_is_parsed_beside_the_loop(server: LiveServer) -> None:
    filler = {"role": "user", "content": "x" * 200_000}
    response = server.post(messages(*[filler] * 10))
    assert_error(response, 400, code="3051")  # parsed, checked, and too long for the context


def test_upload_that_stalls_is_refused(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "UPLOAD_IDLE_TIMEOUT_S", 0.1)
    head = request_head("Content-Length: 50\r\nConnection: close\r\n")
    answer = exchange_bytes(server, head + b'\r\n{"model"')
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"message":"The request body did not arrive in time"' in answer


class TestRateLimit:
    def test_tells_when_to_come_back_and_what_is_left(self) -> None:
        with live_server(requests_per_minute=2, tokens_per_minute=1000) as live:
            assert live.post(chat()).status_code == 200
            assert live.post(chat(stream=True)).headers["x-ratelimit-remaining-req-minute"] == "0"
            response = live.post({**chat(), "model": "mistral-medium-2505"})
            assert_error(response, 429, type="rate_limited", code="1300", message="Rate limit exceeded")
            assert 1 <= int(response.headers["retry-after"]) <= 61
            assert response.headers["x-ratelimit-limit-req-minute"] == "2"
            assert response.headers["x-ratelimit-remaining-req-minute"] == "0"
            assert "x-ratelimit-limit-tokens-minute" not in response.headers
            assert live.client.get("/v1/models").status_code == 200

    def test_tokens_of_a_stream_are_charged(self) -> None:
        with live_server(tokens_per_minute=8) as live:
            assert live.post(chat(stream=True)).status_code == 200  # 2 + 6 tokens
            response = live.post(chat())
            assert_error(response, 429, code="1300")
            assert response.headers["x-ratelimit-remaining-tokens-minute"] == "0"


class TestUnavailable:
    def test_full_backend_is_503_not_429(self, server: LiveServer) -> None:
        server.backend.script = Script(
            refusal=BackendUnavailable("queue of /secret/path is full", retry_after_s=7)
        )
        for stream in (False, True):
            response = server.post(chat(stream=stream))
            assert_error(
                response, 503, type="internal_server_error", code="3800", message="Service unavailable."
            )
            assert response.headers["retry-after"] == "7"

    def test_engine_that_dies_is_503(self, server: LiveServer) -> None:
        server.backend.script = Script(fail_at_step=2)
        response = server.post(chat())
        assert_error(response, 503, code="3800")
        assert response.headers["retry-after"] == "1"

    def test_work_done_before_the_engine_died_is_recorded(self, server: LiveServer) -> None:
        server.backend.script = Script(fail_at_step=2)
        with capture_logs() as logs:
            server.post(chat())
            record = wait_for_record(logs, status=503)
        assert (record["outcome"], record["completion_tokens"]) == ("failed", 2)


class TestInternalError:
    @pytest.mark.parametrize(
        "script",
        [
            Script(refusal=ZeroDivisionError("secret detail")),
            Script(fault_at_step=0),
            Script(fault_at_step=3),
            Script(finish_reason="error"),
        ],
        ids=["submit", "first step", "later step", "every choice failed"],
    )
    def test_mistake_of_ours_tells_nothing(self, server: LiveServer, script: Script) -> None:
        server.backend.script = script
        response = server.post(chat())
        assert_error(response, 500, type="internal_error", code="3000", message="Internal error")
        assert "secret" not in response.text

    def test_is_logged_with_the_request(self, server: LiveServer) -> None:
        server.backend.script = Script(refusal=ZeroDivisionError("secret detail"))
        with capture_logs() as logs:
            server.post(chat())
            record = wait_for_record(logs, status=500)
        assert record["outcome"] == "failed"
        (error,) = [entry for entry in logs if entry["event"] == "unexpected error"]
        assert error["log_level"] == "error"
        assert error["exc_info"]


def test_strict_lifecycle_refuses_retired_names_and_names_the_replacement() -> None:
    with live_server(FakeBackend(), strict_lifecycle=True) as live:
        for name in ("mistral-medium-2312", "mistral-medium"):
            assert_error(
                live.post({**chat(), "model": name}),
                404,
                type="invalid_model",
                code="1500",
                message=f"Invalid model: {name}. Use mistral-medium-2505 instead.",
            )
            assert_error(live.client.get(f"/v1/models/{name}"), 404)
        assert live.post(chat()).status_code == 200


class TestHttp:
    @pytest.mark.parametrize(
        "garbage",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"hello\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
            b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: abc\r\n\r\n",
            b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000,
            b"GET /" + b"y" * 70_000,
        ],
    )
    def test_what_is_no_http_is_refused_in_json(self, server: LiveServer, garbage: bytes) -> None:
        head, _, body = exchange_bytes(server, garbage).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"\r\ncontent-type: application/json\r\n" in head
        assert b"\r\nmistral-correlation-id: " in head
        assert json.loads(body)["raw_status_code"] == 400

    def test_upgrade_with_a_body_is_answered_as_plain_http(self, server: LiveServer) -> None:
        data = json.dumps(chat()).encode()
        head = request_head(
            f"Content-Length: {len(data)}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            "HTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        )
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(head + b"\r\n" + data)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")

    def test_head_is_get_without_the_body(self, server: LiveServer) -> None:
        for path in ("/healthz", "/readyz", "/v1/models", "/metrics"):
            response = server.client.head(path)
            assert (response.status_code, response.content) == (200, b"")

    def test_body_is_asked_for_with_100_continue(self, server: LiveServer) -> None:
        data = json.dumps(chat()).encode()
        head = request_head(f"Content-Length: {len(data)}\r\nExpect: 100-continue\r\n")
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(head + b"\r\n")
            assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(data)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


class TestCors:
    def test_is_closed_by_default(self, server: LiveServer) -> None:
        response = server.client.get("/v1/models", headers={"origin": "https://example.org"})
        assert "access-control-allow-origin" not in response.headers

    def test_lets_named_origins_in_and_errors_be_read(self) -> None:
        with live_server(cors_origins=("https://example.org",)) as live:
            live.backend.script = Script(refusal=ZeroDivisionError())
            preflight = httpx.options(
                live.url + "/v1/chat/completions",
                headers={
                    "origin": "https://example.org",
                    "access-control-request-method": "POST",
                    "access-control-request-headers": "authorization,content-type",
                },
                trust_env=False,
            )
            assert preflight.status_code == 200
            response = live.post(chat(), headers={"origin": "https://example.org"})
            assert_error(response, 500)
            for answer in (preflight, response):
                assert answer.headers["access-control-allow-origin"] == "https://example.org"
                assert "access-control-allow-credentials" not in answer.headers
            other = live.post(chat(), headers={"origin": "https://example.com"})
            assert "access-control-allow-origin" not in other.headers


def request_head(headers: str) -> bytes:
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n{headers}"
    ).encode()


def exchange_bytes(server: LiveServer, data: bytes) -> bytes:
    """Send bytes and return everything that comes until the server closes."""
    deadline = time.monotonic() + 5
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(data)
        received = b""
        while time.monotonic() < deadline and (part := connection.recv(65536)):
            received += part
    return received
