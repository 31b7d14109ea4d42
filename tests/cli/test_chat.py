"""`mezzo chat` with one question: the answer on stdout, and every way it can fail."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Run
from tests.cli.sse_server import KEY, SseServer


class TestOneQuestion:
    def test_the_answer_alone_is_printed(self, mezzo: Run, server: SseServer) -> None:
        done = mezzo("chat", "Hello?", "--url", server.url, "--api-key", KEY)
        assert (done.returncode, done.stdout, done.stderr) == (0, "Réponse 1.\n", "")
        assert server.requests == [
            {
                "model": "mistral-medium-latest",
                "messages": [{"role": "user", "content": "Hello?"}],
                "stream": True,
            }
        ]

    def test_the_question_can_come_from_standard_input(self, mezzo: Run, server: SseServer) -> None:
        done = mezzo("chat", "--url", server.url + "/v1/", "--api-key", KEY, stdin="Héllo\nthere\n")
        assert done.stdout == "Réponse 1.\n"
        assert server.texts() == [("user", "Héllo\nthere\n")]

    def test_options_reach_the_request(self, mezzo: Run, server: SseServer) -> None:
        options = ("--system", "Be brief.", "--temperature", "0.2", "--max-tokens", "5")
        mezzo(
            "chat", "Hi", "--url", server.url, "--model", "mistral-medium-2505", *options, MEZZO_API_KEY=KEY
        )
        (request,) = server.requests
        assert request["model"] == "mistral-medium-2505"
        assert (request["temperature"], request["max_tokens"]) == (0.2, 5)
        assert server.texts() == [("system", "Be brief."), ("user", "Hi")]

    def test_the_server_of_the_settings_and_this_machines_key_are_the_default(
        self, mezzo: Run, server: SseServer, environment: dict[str, str]
    ) -> None:
        port = server.url.rpartition(":")[2]
        done = mezzo("chat", "Hi", MEZZO_PORT=port, MEZZO_HOST="0.0.0.0")
        assert done.returncode == 1  # the key made for this machine is not the test server's
        with open(environment["MEZZO_HOME"] + "/api-key") as file:  # noqa: PTH123
            assert server.keys == [f"Bearer {file.read().strip()}"]

    def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
        self, mezzo: Run, server: SseServer
    ) -> None:
        done = mezzo(
            "chat", "Hi", "--url", server.url, "--api-key", KEY, HTTP_PROXY="http://127.0.0.1:9", NO_PROXY=""
        )
        assert done.stdout == "Réponse 1.\n"

    def test_output_that_is_piped_is_not_changed(self, mezzo: Run, server: SseServer) -> None:
        done = mezzo("chat", "escape", "--url", server.url, "--api-key", KEY)
        assert done.stdout == "a\x1b]0;title\x07b\x9bc\td\n"


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "teal").save(buffer, form)
    return buffer.getvalue()


class TestImages:
    @pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
    def test_a_file_goes_with_the_question_as_what_it_is(
        self, mezzo: Run, server: SseServer, tmp_path: Path, form: str
    ) -> None:
        (tmp_path / "no suffix é").write_bytes(encoded(form))
        done = mezzo("chat", "What?", "--image", "no suffix é", "--url", server.url, "--api-key", KEY)
        assert (done.returncode, done.stdout, done.stderr) == (0, "Réponse 1.\n", "")
        (message,) = server.requests[0]["messages"]
        image, text = message["content"]
        assert text == {"type": "text", "text": "What?"}
        assert image["type"] == "image_url"
        kind, _, data = image["image_url"].partition(",")
        assert kind == f"data:image/{form.lower()};base64"
        assert base64.b64decode(data, validate=True) == encoded(form)

    def test_several_in_their_order_and_urls_as_they_are(
        self, mezzo: Run, server: SseServer, tmp_path: Path
    ) -> None:
        (tmp_path / "a.png").write_bytes(encoded("PNG"))
        url = "https://example.org/b.jpg?size=1"
        options = ("--image", "a.png", "--image", url, "--system", "Be brief.")
        mezzo("chat", *options, "--url", server.url, "--api-key", KEY, stdin="Which?\n")
        system, message = server.requests[0]["messages"]
        assert system == {"role": "system", "content": "Be brief."}
        urls = [chunk["image_url"] for chunk in message["content"][:-1]]
        assert urls[0].startswith("data:image/png;base64,")
        assert urls[1] == url
        assert message["content"][-1] == {"type": "text", "text": "Which?\n"}

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "x.png cannot be read: No such file or directory"),
            (b"", "x.png: the image is empty"),
            (b"hello", "x.png: the file is not an image; send PNG, JPEG, WEBP or GIF"),
            (b"%PDF-1.7", "x.png: PDF is not supported; send PNG, JPEG, WEBP or GIF"),
            (encoded("PNG")[:30], "x.png: the image is truncated"),
        ],
    )
    def test_what_is_no_picture_is_told_before_anything_is_sent(
        self, mezzo: Run, server: SseServer, tmp_path: Path, content: bytes | None, said: str
    ) -> None:
        if content is not None:
            (tmp_path / "x.png").write_bytes(content)
        done = mezzo("chat", "What?", "--image", "x.png", "--url", server.url, "--api-key", KEY)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines() == [f"error: --image: {said}"]
        assert server.requests == []

    def test_a_file_that_is_too_large_is_not_read(
        self, mezzo: Run, server: SseServer, tmp_path: Path
    ) -> None:
        with (tmp_path / "x.png").open("wb") as file:
            file.truncate(20 * 1024 * 1024 + 1)
        done = mezzo("chat", "What?", "--image", "x.png", "--url", server.url, "--api-key", KEY)
        assert done.stderr.splitlines() == [
            "error: --image: x.png: the file has 20971521 bytes, at most 20971520 can be sent"
        ]
        assert done.returncode == 2

    def test_a_folder_is_no_picture(self, mezzo: Run, server: SseServer, tmp_path: Path) -> None:
        done = mezzo("chat", "What?", "--image", str(tmp_path), "--url", server.url, "--api-key", KEY)
        assert done.stderr.splitlines() == [f"error: --image: {tmp_path} is not a file"]


class TestFailures:
    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (("busy",), ["error: Rate limit exceeded; try again in 7 s"]),
            (
                ("long",),
                [
                    "error: the server refused the request (400): Prompt contains 9 tokens and 0 draft "
                    "tokens, too large for model with 8 maximum context length"
                ],
            ),
            (
                ("Hi", "--model", "gpt"),
                ["error: Invalid model: gpt", "       `mezzo models` lists the names."],
            ),
            (
                ("Hi", "--max-tokens", "-1"),
                ["error: the server refused the request (422): max_tokens: Input should be …"],
            ),
            (
                ("Hi", "--api-key", "wrong"),
                [
                    "error: the server does not accept this API key",
                    "       Give the key that `mezzo serve` printed: --api-key KEY, or MEZZO_API_KEY.",
                ],
            ),
        ],
    )
    def test_a_refusal_says_what_and_what_next(
        self, mezzo: Run, server: SseServer, args: tuple[str, ...], said: list[str]
    ) -> None:
        done = mezzo("chat", *args, "--url", server.url, MEZZO_API_KEY=KEY)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines() == said

    @pytest.mark.parametrize(
        ("question", "said"),
        [("break", "the connection to the server was lost"), ("engine", "the server failed while it was")],
    )
    def test_an_answer_that_breaks_off_is_an_error_after_what_came(
        self, mezzo: Run, server: SseServer, question: str, said: str
    ) -> None:
        done = mezzo("chat", question, "--url", server.url, "--api-key", KEY)
        assert (done.returncode, done.stdout) == (1, "half an ans\n")
        assert f"error: {said}" in done.stderr

    def test_no_server_names_the_command_that_starts_one(self, mezzo: Run) -> None:
        done = mezzo("chat", "Hi", "--url", "http://127.0.0.1:9")
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            "error: nothing answers at http://127.0.0.1:9",
            "       Start the server with `mezzo serve`, or name another one with --url.",
        ]

    def test_this_machines_key_is_not_sent_elsewhere(self, mezzo: Run) -> None:
        done = mezzo("chat", "Hi", "--url", "https://api.example.org")
        assert done.returncode == 2
        assert done.stderr.startswith("error: https://api.example.org needs a key")

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (("Hi", "--url", "localhost:8000"), "--url: localhost:8000 is not a URL"),
            (("  ",), "the question is empty"),
            ((), "the question is empty"),
        ],
    )
    def test_a_wrong_call_exits_with_2(self, mezzo: Run, args: tuple[str, ...], said: str) -> None:
        done = mezzo("chat", *args)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
