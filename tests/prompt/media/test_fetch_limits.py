"""Servers that never end, lie, or are somebody else: within size and time, and by certificate."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mezzo.prompt.media.addresses import IPAddress
from mezzo.prompt.media.fetch import NOT_FETCHED

from .test_fetch import BODY, get, make, refusal
from .web_server import Names, OnlyServer, WebServer, answer, drip, ok, redirect, serving


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def drip_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(900):
        writer.write(b"x-%d: y\r\n" % number)
        await writer.drain()
        await asyncio.sleep(0.05)


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nx: ")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def endless_news(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()


async def tiny_pieces(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\nx\r\n" * 10_000)
        await writer.drain()


class TestLimits:
    async def test_an_answer_in_tiny_pieces_is_given_up_early(self) -> None:
        """Six bytes on the wire for each that counts: the limit of size alone would let it go on for long."""
        async with serving(WebServer({"/": tiny_pieces})) as server:
            assert await refusal(get(server, max_bytes=1 << 30, timeout_s=60)) == NOT_FETCHED

    async def test_as_large_as_allowed_and_no_larger(self) -> None:
        async with serving(WebServer({"/": ok(b"x" * 100), "/open": answer(200, b"x" * 100)})) as server:
            for path in ("/", "/open"):
                assert len(await get(server, path, max_bytes=100)) == 100
                assert await refusal(get(server, path, max_bytes=99)) == "the file is larger than 99 bytes"

    async def test_a_body_without_end(self) -> None:
        async with serving(WebServer({"/": endless})) as server:
            assert "larger than" in await refusal(get(server, max_bytes=1 << 20))

    @pytest.mark.parametrize("handler", [drip, drip_headers, silent, endless_news])
    async def test_the_time_limit_is_for_the_whole(self, handler: Any) -> None:
        async with serving(WebServer({"/": handler})) as server:
            start = time.monotonic()
            assert await refusal(get(server, timeout_s=0.4)) == NOT_FETCHED
            assert time.monotonic() - start < 2

    async def test_a_slow_resolver_counts_too(self) -> None:
        class Slow:
            async def resolve(self, host: str, port: int) -> list[IPAddress]:
                await asyncio.sleep(30)
                return []

        fetching = make(resolver=Slow(), timeout_s=0.2).fetch("http://a.example/", max_bytes=9)
        assert await asyncio.wait_for(refusal(fetching), 2) == NOT_FETCHED

    async def test_headers_without_end(self) -> None:
        async with serving(WebServer({"/": endless_headers})) as server:
            assert await refusal(get(server, timeout_s=5)) == NOT_FETCHED

    @pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate", "identity, gzip", "x-unknown"])
    async def test_a_compressed_body_is_not_unpacked(self, encoding: str) -> None:
        bomb = gzip.compress(bytes(50 << 20))
        async with serving(WebServer({"/": ok(bomb, f"content-encoding: {encoding}")})) as server:
            assert await refusal(get(server, max_bytes=1 << 20)) == NOT_FETCHED

    async def test_identity_is_no_compression(self) -> None:
        async with serving(WebServer({"/": ok(BODY, "content-encoding: Identity")})) as server:
            assert await get(server) == BODY

    @pytest.mark.parametrize(
        "raw",
        [
            answer(200, BODY, "content-length: 100"),  # closed early
            answer(200, BODY, "content-length: -1"),
            answer(200, BODY, "content-length: 8x"),
            answer(200, BODY, "content-length: 8", "content-length: 9"),
            answer(200, b"5\r\nthe", "transfer-encoding: chunked"),
            answer(200, b"zz\r\nthe", "transfer-encoding: chunked"),
            b"",
            b"HTTP/1.1 200",
            b"220 ftp ready\r\n\r\n",
            b"\x15\x03\x01\x00\x02\x02\x28",
        ],
    )
    async def test_answers_that_are_no_http(self, raw: bytes) -> None:
        async with serving(WebServer({"/": raw})) as server:
            assert await refusal(get(server)) == NOT_FETCHED

    async def test_more_than_announced_is_not_read(self) -> None:
        async with serving(WebServer({"/": answer(200, BODY + b"more", "content-length: 8")})) as server:
            assert await get(server) == BODY

    async def test_cancelling_closes_the_connection(self) -> None:
        async with serving(WebServer({"/": drip})) as server:
            task = asyncio.ensure_future(get(server))
            while server.num_open == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for _ in range(100):
                if server.num_open == 0:
                    break
                await asyncio.sleep(0.05)
            assert server.num_open == 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the key and the self-signed certificate of `site.example`."""
    folder = tmp_path_factory.mktemp("tls")
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("needs openssl to make a certificate")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=site.example", "-addext", "subjectAltName=DNS:site.example",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both


class TestTls:
    @pytest.fixture
    def tls(self, certificate: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        return context

    async def test_the_name_is_in_the_handshake_and_its_certificate_is_checked(
        self, tls: ssl.SSLContext, certificate: Path
    ) -> None:
        asked: list[str | None] = []
        tls.sni_callback = lambda _socket, name, _context: asked.append(name)
        trust = ssl.create_default_context(cafile=certificate)
        names = Names(site="127.0.0.1", other="127.0.0.1")
        async with serving(WebServer({"/": ok(BODY)}), tls=tls) as server:
            fetcher = make(server, ssl_context=trust, resolver=names)
            assert await fetcher.fetch(f"https://site.example:{server.port}/", max_bytes=99) == BODY
            # The same address under a name that the certificate is not for, and under none.
            for host in ("other.example", "127.0.0.1"):
                assert (
                    await refusal(fetcher.fetch(f"https://{host}:{server.port}/", max_bytes=99))
                    == NOT_FETCHED
                )
        assert asked[:2] == ["site.example", "other.example"]
        assert len(server.heads) == 1

    async def test_unknown_authorities_are_not_trusted(self, tls: ssl.SSLContext) -> None:
        async with serving(WebServer({"/": ok(BODY)}), tls=tls) as server:
            fetcher = make(server)
            assert (
                await refusal(fetcher.fetch(f"https://site.example:{server.port}/", max_bytes=99))
                == NOT_FETCHED
            )
            assert server.heads == []

    async def test_a_redirect_to_plain_http_is_refused(self, tls: ssl.SSLContext, certificate: Path) -> None:
        trust = ssl.create_default_context(cafile=certificate)
        async with serving(WebServer({"/": ok(BODY)})) as plain, serving(WebServer(), tls=tls) as server:
            server.answers["/"] = redirect(f"http://site.example:{plain.port}/")
            policy = OnlyServer(server.port, frozenset({plain.port}))
            fetcher = make(policy=policy, ssl_context=trust)
            assert (
                await refusal(fetcher.fetch(f"https://site.example:{server.port}/", max_bytes=99))
                == NOT_FETCHED
            )
            assert plain.num_connections == 0
