"""Log lines: their form, and what never stands in them."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from mezzo.kit.logging import configure_logging

KEY = "mz-0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def configured(**options: Any) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(stream=stream, **options)
    return stream


def only_line(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestForm:
    def test_lines_are_json_away_from_a_terminal(self) -> None:
        stream = configured()
        structlog.get_logger("mezzo.test").info("request finished", num_tokens=3, text="é")
        line = only_line(stream)
        assert line["event"] == "request finished"
        assert line["level"] == "info"
        assert line["logger"] == "mezzo.test"
        assert line["num_tokens"] == 3
        assert line["text"] == "é"
        assert line["timestamp"].endswith("Z")

    def test_lines_are_for_people_on_a_terminal(self) -> None:
        stream = Terminal()
        configure_logging(stream=stream)
        structlog.get_logger().info("request finished", num_tokens=3)
        assert "request finished" in stream.getvalue()
        assert not stream.getvalue().startswith("{")

    def test_the_format_can_be_chosen(self) -> None:
        stream = Terminal()
        configure_logging(stream=stream, format="json")
        structlog.get_logger().info("ready")
        assert only_line(stream)["event"] == "ready"

    def test_lines_below_the_level_are_left_out(self) -> None:
        stream = configured(level="warning")
        structlog.get_logger().info("unseen")
        logging.getLogger("library").info("unseen")
        structlog.get_logger().warning("seen")
        assert only_line(stream)["event"] == "seen"

    def test_fields_of_the_context_stand_in_every_line(self) -> None:
        stream = configured()
        with structlog.contextvars.bound_contextvars(request_id="ab"):
            structlog.get_logger().info("one")
        assert only_line(stream)["request_id"] == "ab"

    def test_a_logger_made_earlier_follows_a_later_configuration(self) -> None:
        logger = structlog.get_logger()
        first = configured()
        logger.info("one")
        second = configured()
        logger.info("two")
        assert only_line(first)["event"] == "one"
        assert only_line(second)["event"] == "two"


class TestOtherLoggers:
    def test_uvicorn_writes_the_same_lines(self) -> None:
        uvicorn_logger = logging.getLogger("uvicorn.error")
        uvicorn_logger.addHandler(logging.NullHandler())
        stream = configured()
        uvicorn_logger.warning("Lost %s", "server", extra={"color_message": "coloured"})
        line = only_line(stream)
        assert line["event"] == "Lost server"
        assert line["logger"] == "uvicorn.error"
        assert "color_message" not in line

    @pytest.mark.parametrize("name", ["authlib.integrations.base_client.sync_app", "httpx2", "httpx"])
    def test_libraries_that_tell_secrets_when_they_debug_are_quiet(self, name: str) -> None:
        stream = configured(level="debug")
        logging.getLogger(name).debug("Using code_verifier: 'swordfish'")
        assert stream.getvalue() == ""

    def test_warnings_become_lines(self) -> None:
        stream = configured()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(capture=True)  # catch_warnings put the original hook back
            warnings.warn("old habit", UserWarning, stacklevel=1)
        assert "old habit" in only_line(stream)["event"]


class TestSecrets:
    def test_keys_are_masked_in_every_field_and_depth(self) -> None:
        stream = configured()
        structlog.get_logger().info(
            f"key {KEY}",
            headers={"Authorization": f"Bearer {KEY}", "accept": "*/*"},
            items=[("x", KEY)],
            raw=f"Authorization: Bearer {KEY}".encode(),
            other="sk-0123456789abcdefghijkl",
            api_key="some-key-of-another-kind",
        )
        text = stream.getvalue()
        assert KEY not in text
        assert "0123456789abcdef" not in text
        line = only_line(stream)
        assert line["event"] == "key mz-…DEFG"
        assert line["headers"] == {"Authorization": "…", "accept": "*/*"}
        assert line["items"] == [["x", "mz-…DEFG"]]
        assert line["raw"] == "Authorization: Bearer …"
        assert line["api_key"] == "…kind"

    def test_the_key_an_operator_chose_is_masked_wherever_it_stands(self) -> None:
        stream = configured(secrets=["hunter2"])
        logging.getLogger("library").warning("sent hunter2 to %s", "x?key=hunter2")
        assert only_line(stream)["event"] == "sent … to x?key=…"

    @pytest.mark.parametrize("format", ["json", "console"])
    def test_tracebacks_are_masked(self, format: str) -> None:
        stream = configured(format=format)
        try:
            int(f"bad key {KEY}")
        except ValueError:
            structlog.get_logger().exception("failed")
            logging.getLogger("library").exception("failed too")
        text = stream.getvalue()
        assert text.count("with base 10: 'bad key mz-…DEFG'") == 2
        assert KEY not in text

    def test_numbers_flags_and_nothing_stay_what_they_are(self) -> None:
        stream = configured()
        structlog.get_logger().info("x", count=3, share=0.5, ok=True, none=None, api_key=None)
        line = only_line(stream)
        assert (line["count"], line["share"], line["ok"], line["none"], line["api_key"]) == (
            3,
            0.5,
            True,
            None,
            None,
        )


class TestPrompts:
    def test_prompts_and_completions_are_left_out(self) -> None:
        stream = configured()
        structlog.get_logger().info("request finished", prompt="my secret", completion="yours", n=1)
        line = only_line(stream)
        assert "prompt" not in line
        assert "completion" not in line
        assert line["n"] == 1

    def test_they_appear_when_the_operator_asks_for_them(self) -> None:
        stream = configured(log_prompts=True)
        structlog.get_logger().info("request finished", prompt="my secret", completion="yours")
        assert only_line(stream)["prompt"] == "my secret"
        assert only_line(stream)["completion"] == "yours"
