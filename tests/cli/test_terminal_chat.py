"""The conversation at a real terminal: typed keys in, the screen's text out."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from PIL import Image

from tests.cli.sse_server import KEY, SseServer

CTRL_C, CTRL_D, ALT_ENTER, UP = "\x03", "\x04", "\x1b\r", "\x1b[A"
pytestmark = pytest.mark.slow
Start = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture
def start(server: SseServer, environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts `mezzo chat` at a terminal of its own and waits for its prompt."""
    running = []

    def spawn(*args: str) -> pexpect.spawn[str]:
        chat = pexpect.spawn(
            sys.executable,
            ["-m", "mezzo", "chat", "--url", server.url, *args],
            env=environment | {"MEZZO_API_KEY": KEY, "PROMPT_TOOLKIT_NO_CPR": "1"},  # type: ignore[arg-type]
            cwd=str(tmp_path),
            encoding="utf-8",
            timeout=10,
            dimensions=(40, 120),
        )
        running.append(chat)
        chat.expect("Ctrl-D to leave")
        chat.expect("›")
        return chat

    yield spawn
    for chat in running:
        chat.close(force=True)


def ask(chat: pexpect.spawn[str], line: str, expected: str) -> None:
    """Type a line, and wait for the text and then for the next prompt."""
    chat.send(line + "\r")
    chat.expect(expected)
    chat.expect("›")


def leave(chat: pexpect.spawn[str]) -> None:
    chat.send(CTRL_D)
    chat.expect(pexpect.EOF)
    chat.wait()
    assert chat.exitstatus == 0


class TestTalking:
    def test_a_second_question_comes_with_the_first_exchange(self, start: Start, server: SseServer) -> None:
        chat = start("--system", "Be brief.")
        ask(chat, "One?", r"Réponse 2\.\r\n.*12 \+ 34 tokens")
        ask(chat, "Two?", r"Réponse 4\.")
        assert server.texts() == [
            ("system", "Be brief."),
            ("user", "One?"),
            ("assistant", "Réponse 2."),
            ("user", "Two?"),
        ]
        leave(chat)

    def test_ctrl_c_stops_the_answer_and_not_the_program(self, start: Start, server: SseServer) -> None:
        chat = start()
        chat.send("slow\r")
        chat.expect("word3 ")
        chat.send(CTRL_C)
        chat.expect("stopped; the answer stays in the conversation")
        chat.expect("›")
        assert server.hung_up.wait(10)
        ask(chat, "And now?", r"Réponse 3\.")
        (_, answer) = server.texts()[1]
        assert answer.startswith("word0 word1 word2 word3 ")
        assert server.texts()[2] == ("user", "And now?")
        leave(chat)

    def test_ctrl_c_at_the_prompt_clears_the_line(self, start: Start, server: SseServer) -> None:
        chat = start()
        chat.send("never sent")
        chat.expect("never sent")
        chat.send(CTRL_C)
        chat.expect("Ctrl-D or /exit leaves")
        ask(chat, "sent", "Réponse")
        assert server.texts() == [("user", "sent")]
        leave(chat)

    def test_a_message_can_have_several_lines(self, start: Start, server: SseServer) -> None:
        chat = start()
        chat.send("one" + ALT_ENTER + "two\\\rthree")
        chat.expect("three")
        ask(chat, "", "Réponse")
        assert server.texts() == [("user", "one\ntwo\nthree")]
        leave(chat)

    def test_what_was_entered_is_there_in_the_next_session(
        self, start: Start, server: SseServer, environment: dict[str, str]
    ) -> None:
        chat = start()
        ask(chat, "remember me", "Réponse")
        leave(chat)
        chat = start()
        chat.send(UP)
        chat.expect("remember me")
        ask(chat, "", "Réponse")
        assert server.texts() == [("user", "remember me")]
        history = Path(environment["MEZZO_HOME"]) / "chat-history"
        assert stat.S_IMODE(history.stat().st_mode) == 0o600

    def test_text_of_the_model_cannot_steer_the_terminal(self, start: Start) -> None:
        chat = start()
        ask(chat, "escape", "a�]0;title�b�c")


class TestFailures:
    def test_a_refusal_is_one_line_and_the_question_can_be_asked_again(
        self, start: Start, server: SseServer
    ) -> None:
        chat = start()
        ask(chat, "busy", "error: Rate limit exceeded; try again in 7 s")
        ask(chat, "/retry", "error: Rate limit exceeded")
        ask(chat, "fine", r"Réponse 1\.")
        assert [request["messages"][-1]["content"] for request in server.requests] == ["busy", "busy", "fine"]

    def test_an_answer_that_breaks_off_is_not_kept(self, start: Start, server: SseServer) -> None:
        chat = start()
        ask(chat, "break", "error: the connection to the server was lost")
        ask(chat, "again", r"Réponse 1\.")
        assert server.texts() == [("user", "again")]

    def test_the_end_by_a_limit_is_told(self, start: Start) -> None:
        ask(start(), "length", "cut at the token limit")

    def test_a_server_that_is_gone_is_told(self, start: Start, server: SseServer) -> None:
        chat = start()
        server.__exit__()
        server.__init__()  # type: ignore[misc]  # the fixture ends a server that runs
        server.__enter__()
        ask(chat, "hello", "error: nothing answers at .*mezzo serve")


class TestCommands:
    def test_help_lists_every_command(self, start: Start) -> None:
        chat = start()
        chat.send("/help\r")
        for name in ("system", "image", "model", "temperature", "clear", "retry", "save", "usage", "exit"):
            chat.expect(f"/{name} ")
        chat.expect("›")

    def test_an_unknown_command_suggests_one(self, start: Start) -> None:
        ask(start(), "/modle", "error: there is no command /modle. Did you mean /model")

    def test_settings_of_the_conversation_reach_the_next_request(
        self, start: Start, server: SseServer
    ) -> None:
        chat = start()
        ask(chat, "/system Be brief.", "system message set")
        ask(chat, "/model mistral-medium-2505", "now talking to mistral-medium-2505")
        ask(chat, "/temperature 0.5", "temperature: 0.5")
        ask(chat, "Hi", "Réponse")
        assert server.texts() == [("system", "Be brief."), ("user", "Hi")]
        assert (server.requests[-1]["model"], server.requests[-1]["temperature"]) == (
            "mistral-medium-2505",
            0.5,
        )
        ask(chat, "/system", "no system message")
        ask(chat, "/temperature", "the model's own")
        ask(chat, "/clear", "forgotten")
        ask(chat, "Hi", "Réponse")
        assert server.texts() == [("user", "Hi")]
        assert "temperature" not in server.requests[-1]

    def test_wrong_values_are_refused(self, start: Start) -> None:
        chat = start()
        ask(chat, "/temperature hot", "error: a temperature is a number from 0 to 1.5")
        ask(chat, "/temperature nan", "error: a temperature is a number")
        ask(chat, "/model gpt", "error: the server has no model gpt")
        ask(chat, "/retry", "error: there is no question to ask again")
        ask(chat, "/save", "error: /save needs a file name")

    def test_retry_replaces_the_last_answer(self, start: Start, server: SseServer) -> None:
        chat = start()
        ask(chat, "One?", r"Réponse 1\.")
        ask(chat, "/retry", r"Réponse 1\.")
        ask(chat, "Two?", r"Réponse 3\.")
        assert [role for role, _ in server.texts()] == ["user", "assistant", "user"]

    def test_save_writes_the_messages_or_markdown_and_overwrites_nothing(
        self, start: Start, tmp_path: Path
    ) -> None:
        chat = start("--system", "Be brief.")
        ask(chat, "One?", "Réponse")
        ask(chat, "/save talk.json", "saved to talk.json")
        ask(chat, "/save talk.md", "saved to talk.md")
        ask(chat, "/save talk.md", "error: talk.md exists")
        ask(chat, "/save nowhere/talk.md", "error: nowhere/talk.md cannot be written")
        assert json.loads((tmp_path / "talk.json").read_text(encoding="utf-8")) == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "Réponse 2."},
        ]
        assert "**You:** One?" in (tmp_path / "talk.md").read_text(encoding="utf-8")

    def test_images_go_with_the_next_message_and_stay_in_the_conversation(
        self, start: Start, server: SseServer, tmp_path: Path
    ) -> None:
        for name in ("a.png", "b c.gif"):
            Image.new("RGB", (3, 2)).save(tmp_path / name)
        chat = start("--image", "a.png")
        ask(chat, "/image none.png", "error: none.png cannot be read: No such file")
        ask(chat, "/image b c.gif", r"with the next message: a\.png, b c\.gif")
        ask(chat, "Which?", r"Réponse 1\.")
        pictures = "<data:image/png;base64,><data:image/gif;base64,>"
        assert server.texts() == [("user", pictures + "Which?")]
        ask(chat, "/retry", r"Réponse 1\.")
        assert server.texts() == [("user", pictures + "Which?")]
        ask(chat, "/image https://example.org/a.jpg", "with the next message: https")
        ask(chat, "/image", "no picture")
        ask(chat, "Sure?", r"Réponse 3\.")
        assert server.texts() == [
            ("user", pictures + "Which?"),
            ("assistant", "Réponse 1."),
            ("user", "Sure?"),
        ]
        ask(chat, "/save talk.md", "saved to talk.md")
        ask(chat, "/save talk.json", "saved to talk.json")
        assert "**You:** *(a.png)* *(b c.gif)* Which?" in (tmp_path / "talk.md").read_text(encoding="utf-8")
        saved = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
        assert [chunk["type"] for chunk in saved[0]["content"]] == ["image_url", "image_url", "text"]

    def test_usage_adds_up(self, start: Start) -> None:
        chat = start()
        ask(chat, "One?", "Réponse")
        ask(chat, "Two?", "Réponse")
        ask(chat, "/usage", r"24 prompt \+ 68 completion tokens")

    def test_two_slashes_send_a_message_that_starts_with_one(self, start: Start, server: SseServer) -> None:
        ask(start(), "//etc is what?", "Réponse")
        assert server.texts() == [("user", "/etc is what?")]

    def test_exit_leaves(self, start: Start) -> None:
        chat = start()
        chat.send("/exit\r")
        chat.expect(pexpect.EOF)
        chat.wait()
        assert chat.exitstatus == 0
