"""URLs are read strictly, and `data:` URIs to the byte."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzo.prompt.media.urls import InvalidUrl, decode_data_uri, parse_target


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://example.com", "example.com", 80),
        ("https://example.com/a%20b?c=d&e#f", "example.com", 443),
        ("HTTPS://EXAMPLE.com:443/", "example.com", 443),
        ("http://example.com:8080/", "example.com", 8080),
        ("http://example.com./", "example.com", 80),
        ("http://bücher.example/", "xn--bcher-kva.example", 80),
        ("http://xn--bcher-kva.example/", "xn--bcher-kva.example", 80),
        ("http://my_bucket.s3.example/", "my_bucket.s3.example", 80),
        ("http://93.184.216.34/", "93.184.216.34", 80),
        ("http://[2606:4700::1]:80/", "2606:4700::1", 80),
        ("http://localhost/", "localhost", 80),
    ],
)
def test_ordinary_urls(url: str, host: str, port: int) -> None:
    target = parse_target(url)
    assert (target.host, target.port) == (host, port)
    assert (target.address is None) == (not host[0].isdigit())
    assert "#" not in str(target.url)


HOSTILE = [
    "", " ", "example.com", "//example.com", "/etc/passwd", "../x", "http:", "http://", "http:///x", "https://:443/",
    "file:///etc/passwd", "FILE:///etc/passwd", "ftp://example.com/", "gopher://example.com:70/_x", "ws://example.com",
    "javascript:alert(1)", "blob:https://example.com/1", "unix:///run/docker.sock", "http+unix://%2Frun/x", "jar:http://x!/",
    "dict://localhost:11211/", "ldap://localhost/", "about:blank", "mailto:a@example.com",
    "http://user@example.com/", "http://user:pw@example.com/", "http://@example.com/", "http://:@example.com/",
    "http://example.com@127.0.0.1/", "http://example.com\\@127.0.0.1/", "http:\\\\127.0.0.1\\", "http://example.com\\.evil/",
    "http://exa mple.com/", "http://example.com/a b", " http://example.com/", "http://example.com/\r\nHost: x",
    "http://example.com\t/", "http://example.com/\0", "http://example.com\n@127.0.0.1/", "http://exam\x7fple.com/",
    "http://2130706433/", "http://0x7f000001/", "http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://017700000001/",
    "http://127.1/", "http://127.0.1/", "http://0/", "http://127.0.0.1./", "http://1.2.3.4.5/", "http://256.1.1.1/",
    "http://example.0x7f/", "http://example.1/", "http://1.2.3.0xff/", "http://127.0.0.1%00/", "http://127.0.0.1%2f/",
    "http://[::1/", "http://::1/", "http://[::1]x/", "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[]/",
    "http://[127.0.0.1]/", "http://[v1.x]/", "http://[::ffff:127.0.0.1", "http://%6c%6fcalhost/", "http://exa%mple/",
    "http://.example.com/", "http://example..com/", "http://-a.example/", "http://a-.example/", "http://./", "http://../",
    "http://" + "a" * 64 + ".example/", "http://" + "a." * 130 + "example/", "http://*.example.com/", "http://a,b/",
    "http://example.com:x/", "http://example.com:99999/", "http://example.com:-1/", "http://example.com:8 0/",
    "http://١٢٧.٠.٠.١/", "http://xn--/", "http://\u200bexample.com/", "http://⑯⑨.254.169.254/",
    "http://example.com/" + "a" * 9000,
]  # fmt: skip


@pytest.mark.parametrize("url", HOSTILE)
def test_hostile_urls_are_refused_before_anything_is_asked(url: str) -> None:
    with pytest.raises(InvalidUrl) as caught:
        parse_target(url)
    assert "127" not in str(caught.value)
    assert "passwd" not in str(caught.value)


@given(st.text(max_size=40).map(lambda text: "http://" + text))
def test_any_text_is_a_target_or_an_invalid_url(url: str) -> None:
    try:
        target = parse_target(url)
    except InvalidUrl:
        return
    assert target.host.isascii()
    assert not set(target.host) & set("/@?#\\ %[]")


def test_relative_urls_are_read_against_the_hop_before() -> None:
    base = parse_target("https://example.com/a/b")
    assert str(parse_target("../c?d", base=base).url) == "https://example.com/c?d"
    assert parse_target("//other.example/", base=base).host == "other.example"
    assert parse_target("http://127.0.0.1/", base=base).host == "127.0.0.1"
    for bad in ("file:///etc/passwd", "data:,x", "http://u@x/", "//2130706433/"):
        with pytest.raises(InvalidUrl):
            parse_target(bad, base=base)


@pytest.mark.parametrize(
    ("uri", "data"),
    [
        ("data:,hello", b"hello"),
        ("data:,", b""),
        ("data:,a,b%2Cc", b"a,b,c"),
        ("data:text/plain;charset=utf-8,%C3%BC%00", b"\xc3\xbc\0"),
        ("data:image/png;base64,aGVsbG8=", b"hello"),
        ("DATA:IMAGE/PNG;BASE64,aGVsbG8=", b"hello"),
        ("data:;base64,aGVsbG8=", b"hello"),
        ("data:image/svg+xml;charset=utf-8;name=a.svg;base64,aGk=", b"hi"),
        ("data:image/png;base64,aGVsbG8%3D", b"hello"),
        ("data:image/png;base64,%2B%2F8%3D", b"\xfb\xff"),
        ("data:image/png;base64,", b""),
    ],
)
def test_data_uris(uri: str, data: bytes) -> None:
    assert decode_data_uri(uri, max_bytes=100) == data


@pytest.mark.parametrize(
    "uri",
    [
        "data:", "data:image/png", "data:image/png;base64", "data:image/png;base64;x,aGk=", "data:base64,aGk=",
        "data:image;base64,aGk=", "data:image/png/x;base64,aGk=", "data:image/png;x;base64,aGk=",
        "data:image/png;base64,aGk", "data:image/png;base64,aGk==", "data:;base64,a", "data:;base64,====",
        "data:image/png;base64,aG k=", "data:image/png;base64,aGk=\n", "data:image/png;base64,aGk=aGk=",
        "data:image/png;base64,a-_=", "data:image/png;base64,üüü=", "data:;base64,%zz", "data:;base64,aGk%3",
        "data:,%", "data:,%4", "data:,%zz", "data:,a b", "data:,ü", "data:text /plain,x", "data:text/plain;=x,y",
    ],
)  # fmt: skip
def test_malformed_data_uris_are_refused(uri: str) -> None:
    with pytest.raises(InvalidUrl, match="data: URI"):
        decode_data_uri(uri, max_bytes=100)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 10, 99, 100])
def test_up_to_the_limit_and_no_further(size: int) -> None:
    data = bytes(range(size))
    encoded = base64.b64encode(data).decode()
    uris = [
        "data:;base64," + encoded,
        "data:;base64," + quote(encoded, safe=""),
        "data:," + "".join(f"%{b:02x}" for b in data),
    ]
    for uri in uris:
        assert decode_data_uri(uri, max_bytes=size) == data
        if size:
            with pytest.raises(InvalidUrl, match=f"larger than {size - 1} bytes"):
                decode_data_uri(uri, max_bytes=size - 1)


@given(st.binary(max_size=200))
def test_what_was_encoded_comes_back(data: bytes) -> None:
    assert decode_data_uri("data:a/b;base64," + base64.b64encode(data).decode(), max_bytes=200) == data
    assert decode_data_uri("data:a/b," + quote(data), max_bytes=200) == data
