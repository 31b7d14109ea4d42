"""Specs that name another server instead of weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from mezzo.weights import SilentProgress, WeightsError, is_upstream, parse_upstream, resolve_weights


@pytest.mark.parametrize(
    ("spec", "base_url", "model"),
    [
        ("upstream:http://10.0.0.7:8001/v1#some/model", "http://10.0.0.7:8001/v1", "some/model"),
        ("upstream:https://api.example.org/v1/", "https://api.example.org/v1", "mistral-medium-2505"),
        ("upstream:http://[::1]:8001/v1#a#b", "http://[::1]:8001/v1", "a#b"),
        ("upstream:http://here#", "http://here", "mistral-medium-2505"),
    ],
)
def test_a_url_and_a_model(spec: str, base_url: str, model: str) -> None:
    assert is_upstream(spec)
    upstream = parse_upstream(spec, model_id="mistral-medium-2505")
    assert (upstream.base_url, upstream.model) == (base_url, model)
    assert upstream.description == f"upstream {base_url.split('/')[2]}"
    assert upstream.name == f"{base_url.split('/')[2]}#{model}"


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("", "not followed by an http"),
        ("8001", "not followed by an http"),
        ("ftp://host/v1", "not followed by an http"),
        ("http:///v1", "is not the URL of an API"),
        ("http://a..b/v1", "is not the URL of an API"),
        ("http://a\\b/v1", "is not the URL of an API"),
        (f"http://{'a' * 64}/v1", "is not the URL of an API"),
        ("http://[::1]x/v1", "is not the URL of an API"),
        ("http://host:99999/v1", "not followed by an http"),
        ("http://[::1/v1", "not followed by an http"),
        ("http://user:sesame@host/v1", "a user name in it"),
        ("http://host/v1?key=1", "is not the URL of an API"),
        ("http://host/v 1", "is not the URL of an API"),
        ("http://host/v1\n#m", "is not the URL of an API"),
    ],
)
def test_what_is_no_such_url_is_refused(rest: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as refused:
        parse_upstream(f"upstream:{rest}", model_id="m")
    assert "sesame" not in str(refused.value)


def test_there_is_nothing_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights of it to fetch"):
        resolve_weights("upstream:http://host/v1", home=tmp_path, progress=SilentProgress())
