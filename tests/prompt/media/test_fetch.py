"""Files are fetched from where they may be, within size and time, and from nowhere else."""

from __future__ import annotations

import asyncio
import socket
import time
from ipaddress import ip_address
from typing import Any

import pytest

from mezzo.prompt.media.addresses import IPAddress, PublicAddresses
from mezzo.prompt.media.fetch import FETCHING_IS_OFF, NOT_FETCHED, Fetcher, FetchError, SystemResolver

from .web_server import Names, OnlyServer, WebServer, answer, ok, redirect, serving

BODY = b"the file"


def make(server: WebServer | None = None, **options: Any) -> Fetcher:
    """Return a fetcher that may reach `server`, whose name is `site.example`, and fails at once."""
    defaults: dict[str, Any] = {"min_failure_s": 0.0, "resolver": Names(site="127.0.0.1")}
    if server is not None:
        defaults["policy"] = OnlyServer(server.port)
    return Fetcher(**{**defaults, **options})


async def get(server: WebServer, path: str = "/", *, max_bytes: int = 1000, **options: Any) -> bytes:
    return await make(server, **options).fetch(
        f"http://site.example:{server.port}{path}", max_bytes=max_bytes
    )


async def refusal(fetching: Any) -> str:
    with pytest.raises(FetchError) as caught:
        await fetching
    assert "127.0.0.1" not in caught.value.message
    return caught.value.message


class TestFetching:
    async def test_a_file(self) -> None:
        async with serving(WebServer({"/a%20b?c=d": ok(BODY)})) as server:
            assert await get(server, "/a%20b?c=d#fragment") == BODY

    async def test_the_request_says_who_is_asked_and_nothing_of_us(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        async with serving(WebServer({"/x": ok(BODY)})) as server:
            await get(server, "/x")
        assert server.heads[0].lower().split("\r\n") == [
            "get /x http/1.1",
            f"host: site.example:{server.port}",
            "accept: */*",
            "accept-encoding: identity",
            "user-agent: mezzo",
            "connection: close",
            "",
            "",
        ]

    async def test_a_body_in_chunks_or_up_to_the_end_of_the_connection(self) -> None:
        chunked = answer(200, b"3\r\nthe\r\n5\r\n file\r\n0\r\n\r\n", "transfer-encoding: chunked")
        async with serving(WebServer({"/1": chunked, "/2": answer(200, BODY)})) as server:
            assert await get(server, "/1") == BODY
            assert await get(server, "/2") == BODY

    async def test_the_next_address_when_the_first_does_not_answer(self) -> None:
        async with serving(WebServer({"/": ok(BODY)})) as server:

            class Loopback:
                def permits(self, host: str, address: IPAddress, port: int) -> bool:
                    return address.is_loopback

            names = Names(site=["127.0.0.9", "127.0.0.1"])
            assert await get(server, policy=Loopback(), resolver=names) == BODY

    async def test_a_data_uri_needs_no_network_and_is_read_even_when_fetching_is_off(self) -> None:
        fetcher = make(enabled=False, resolver=None)
        assert await fetcher.fetch("data:;base64,aGk=", max_bytes=2) == b"hi"
        large = "data:," + "a" * (2 << 20)
        assert len(await fetcher.fetch(large, max_bytes=2 << 20)) == 2 << 20
        assert "larger than 1 bytes" in await refusal(fetcher.fetch("data:,ab", max_bytes=1))
        assert "base64" in await refusal(fetcher.fetch("data:;base64,a", max_bytes=9))

    async def test_off_says_what_to_do_instead(self) -> None:
        names = Names(site="8.8.8.8")
        fetcher = make(enabled=False, resolver=names)
        assert await refusal(fetcher.fetch("https://site.example/", max_bytes=1)) == FETCHING_IS_OFF
        assert names.asked == []

    async def test_only_so_many_at_a_time(self) -> None:
        async def slow(writer: asyncio.StreamWriter) -> None:
            most.append(server.num_open)
            await asyncio.sleep(0.1)
            writer.write(ok(BODY))

        most: list[int] = []
        async with serving(WebServer({"/": slow})) as server:
            fetcher = make(server, max_concurrent=2)
            url = f"http://site.example:{server.port}/"
            await asyncio.gather(*(fetcher.fetch(url, max_bytes=99) for _ in range(6)))
        assert max(most) == 2


class TestInside:
    """What a client must not reach through us."""

    @pytest.mark.parametrize(
        "host",
        ["127.0.0.1", "localhost", "localhost.", "LOCALHOST", "[::1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]",
         "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "0.0.0.0", "[::]", "169.254.169.254", "[fd00:ec2::254]", "10.0.0.1",
         "metadata.example", "127。0。0。1"],
    )  # fmt: skip
    async def test_the_default_policy_refuses_this_machine_and_its_network(self, host: str) -> None:
        async with serving(WebServer({"/": ok(BODY)})) as server:
            names = Names(localhost=["127.0.0.1", "::1"], metadata="169.254.169.254")
            # Only the address can be the reason: the port is open.
            policy = PublicAddresses(ports=frozenset({server.port}))
            fetcher = make(policy=policy, resolver=names)
            assert await refusal(fetcher.fetch(f"http://{host}:{server.port}/", max_bytes=99)) == NOT_FETCHED
            assert server.num_connections == 0

    async def test_one_inner_address_among_public_ones_refuses_all(self) -> None:
        async with serving(WebServer({"/": ok(BODY)})) as server:
            fetcher = make(server, resolver=Names(site=["127.0.0.1", "10.0.0.1"]))
            assert (
                await refusal(fetcher.fetch(f"http://site.example:{server.port}/", max_bytes=99))
                == NOT_FETCHED
            )
            assert server.num_connections == 0

    async def test_a_name_that_changes_its_address_is_resolved_once(self) -> None:
        # 127.0.0.2 stands for a public address while it is checked, 127.0.0.1 is where a second look would lead.
        class OnlySecond:
            def permits(self, host: str, address: IPAddress, port: int) -> bool:
                return str(address) == "127.0.0.2"

        names = Names(rebind=[["127.0.0.2"], ["127.0.0.1"]])
        async with (
            serving(WebServer({"/": ok(b"secret")})) as inner,
            serving(WebServer({"/": ok(BODY)}), host="127.0.0.2", port=inner.port),
        ):
            fetcher = make(policy=OnlySecond(), resolver=names)
            url = f"http://rebind.example:{inner.port}/"
            assert await fetcher.fetch(url, max_bytes=99) == BODY
            assert names.asked == ["rebind.example"]
            # The next fetch asks again, and checks again.
            assert await refusal(fetcher.fetch(url, max_bytes=99)) == NOT_FETCHED
            assert inner.num_connections == 0

    async def test_the_connection_goes_to_the_address_that_was_checked(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The system's resolver, which a library might ask again, sends this name elsewhere.
        real = socket.getaddrinfo

        def elsewhere(host: Any, *args: Any, **options: Any) -> Any:
            assert host != "site.example"
            return real(host, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", elsewhere)
        async with serving(WebServer({"/": ok(BODY)})) as server:
            assert await get(server) == BODY

    @pytest.mark.parametrize(
        "location",
        ["http://127.0.0.1:{inner}/", "http://localhost:{inner}/", "http://[::ffff:127.0.0.1]:{inner}/",
         "//127.0.0.1:{inner}/", "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/",
         "http://10.0.0.1/", "file:///etc/passwd", "data:,x", "gopher://127.0.0.1:{inner}/", "http://2130706433:{inner}/",
         "http://user:pw@site.example:{port}/", "http://unknown.example/", "http://", ""],
    )  # fmt: skip
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_redirects_are_checked_like_the_first_url(self, location: str, status: int) -> None:
        async with serving(WebServer({"/": ok(b"secret")})) as inner, serving(WebServer()) as server:
            server.answers["/go"] = redirect(location.format(inner=inner.port, port=server.port), status)
            names = Names(site="127.0.0.1", localhost="127.0.0.1")
            assert await refusal(get(server, "/go", resolver=names)) == NOT_FETCHED
            assert inner.num_connections == 0

    async def test_each_hop_is_resolved_and_checked_again(self) -> None:
        # The same name on the second hop now has another address.
        names = Names(site=[["127.0.0.1"], ["10.0.0.1"]])
        async with serving(WebServer({"/b": ok(BODY)})) as server:
            server.answers["/a"] = redirect(f"http://site.example:{server.port}/b")
            assert await refusal(get(server, "/a", resolver=names)) == NOT_FETCHED
            assert names.asked == ["site.example", "site.example"]

    async def test_all_failures_look_the_same(self) -> None:
        async with serving(WebServer({"/500": answer(500, b"stack trace"), "/204": answer(204)})) as server:
            told = {
                await refusal(get(server, "/500")),
                await refusal(get(server, "/204")),
                await refusal(get(server, "/404")),
                await refusal(make(server).fetch("http://unknown.example/", max_bytes=9)),
                await refusal(make(server).fetch("http://10.0.0.1/", max_bytes=9)),
                await refusal(make(server).fetch("http://site.example:1/", max_bytes=9)),
                await refusal(make(policy=OnlyServer(1)).fetch("http://site.example:1/", max_bytes=9)),
                await refusal(make(resolver=Names(none=[[]])).fetch("http://none.example/", max_bytes=9)),
            }
        assert told == {NOT_FETCHED}

    @pytest.mark.parametrize("url", ["http://unknown.example/", "http://10.0.0.1/", "http://localhost/"])
    async def test_failures_take_the_same_time(self, url: str) -> None:
        fetcher = make(resolver=Names(localhost="127.0.0.1"), min_failure_s=0.3)
        start = time.monotonic()
        await refusal(fetcher.fetch(url, max_bytes=9))
        assert 0.29 < time.monotonic() - start < 1.0


class TestRedirects:
    async def test_are_followed_also_relative_ones_without_cookies(self) -> None:
        async with serving(WebServer({"/b/c": ok(BODY)})) as server:
            server.answers["/a"] = redirect(f"http://site.example:{server.port}/b/x")
            server.answers["/b/x"] = answer(307, b"", "location: c", "set-cookie: a=b", "content-length: 0")
            assert await get(server, "/a") == BODY
        assert not any("cookie" in head.lower() for head in server.heads)

    async def test_five_are_followed_and_not_six(self) -> None:
        async with serving(
            WebServer({f"/{n}": redirect(f"/{n + 1}") for n in range(9)} | {"/9": ok(BODY)})
        ) as server:
            assert await get(server, "/4") == BODY
            server.heads.clear()
            assert await refusal(get(server, "/3")) == NOT_FETCHED
            assert len(server.heads) == 6

    async def test_a_circle_ends(self) -> None:
        async with serving(WebServer({"/": redirect("/")})) as server:
            assert await refusal(get(server)) == NOT_FETCHED
            assert server.num_connections == 6

    async def test_a_redirect_without_a_place_is_a_failure(self) -> None:
        async with serving(WebServer({"/": answer(302)})) as server:
            assert await refusal(get(server)) == NOT_FETCHED


async def test_the_systems_resolver_knows_this_machine() -> None:
    assert ip_address("127.0.0.1") in await SystemResolver().resolve("localhost", 80)
