"""The examination: the same questions for the same seed, asked as users ask, graded to the letter."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from mezzo.train.data.material import Lexicon
from mezzo.train.data.mixture import Size
from mezzo.train.data.picture import Turn
from mezzo.train.evaluate import (
    Graded,
    Question,
    Task,
    accuracy,
    connect,
    examine,
    normalized,
    questions,
    save_failures,
)
from mezzo.train.exam import EXAM
from tests.sdk.serving import KEY, MODEL, serving
from tests.train.small import make_lessons, make_source, write_seeing

TASKS = (
    Task("short word", "line", ("word",), (Size(2, 6),), lambda turn: len(turn.answer) <= 6),
    Task("colour", "shapes", ("colour",), (Size(4, 4),)),
)


@pytest.fixture
def lexicon(language: Path, packaged_fonts: None) -> Lexicon:
    return make_source(language).open().lexicon


def asked(lexicon: Lexicon, seed: int = 1, count: int = 3) -> list[Question]:
    return list(questions(TASKS, count, seed, lexicon))


def question(answer: str = "red", task: str = "colour", shade: int = 0) -> Question:
    return Question(task, np.full((4, 6, 3), shade, np.uint8), Turn("Which colour?", answer, "colour"))


def graded(said: str, answer: str = "red", task: str = "colour", shade: int = 0) -> Graded:
    return Graded(question(answer, task, shade), said, 0.5)


def test_the_same_seed_asks_the_same(lexicon: Lexicon) -> None:
    first, second, other = asked(lexicon), asked(lexicon), asked(lexicon, seed=2)
    assert [q.turn for q in first] == [q.turn for q in second]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(first, second, strict=True))
    assert [q.turn for q in first] != [q.turn for q in other]


def test_questions_are_of_their_tasks(lexicon: Lexicon) -> None:
    drawn = asked(lexicon)
    assert [q.task for q in drawn] == ["short word"] * 3 + ["colour"] * 3
    assert [q.turn.skill for q in drawn] == ["word"] * 3 + ["colour"] * 3
    assert all(len(q.turn.answer) <= 6 for q in drawn[:3])
    assert drawn[0].pixels.shape == (64, 192, 3)
    held_out = {word.lower() for word in lexicon.held_out}
    assert all(q.turn.answer.lower() in held_out for q in drawn[:3])


def test_a_task_does_not_depend_on_those_before_it(lexicon: Lexicon) -> None:
    alone = list(questions(TASKS[1:], 3, 1, lexicon))
    assert [q.turn for q in alone] == [q.turn for q in asked(lexicon)[3:]]


def test_a_skill_that_is_never_asked_for_is_named(lexicon: Lexicon) -> None:
    with pytest.raises(LookupError, match="pictures of shapes hardly ever ask for word"):
        list(questions((Task("no", "shapes", ("word",), (Size(2, 2),)),), 1, 1, lexicon))


@pytest.mark.usefixtures("packaged_fonts")
def test_every_line_of_the_table_can_be_drawn() -> None:
    words = ("apple", "of", "lighthouse", "river", "mountains", "the", "wonderful")
    drawn = list(questions(EXAM, 1, 3, Lexicon(words, words)))
    assert [q.task for q in drawn] == [task.name for task in EXAM]


@pytest.mark.parametrize(
    ("said", "expected", "is_right"),
    [
        ("red", "red", True),
        (" red \n", "red", True),
        ("red.", "red", True),
        ("12.50", "12.50", True),
        ("two  words", "two words", True),
        ("12.5", "12.50", False),
        ("Red", "red", False),
        ("red!", "red", False),
        ("red..", "red", False),
        ("It is red", "red", False),
        ("", "red", False),
        ("3 .", "3.", False),
    ],
)
def test_grading(said: str, expected: str, is_right: bool) -> None:
    assert graded(said, expected).is_right is is_right


def test_only_the_end_of_an_answer_is_forgiven() -> None:
    assert normalized(" a.b. ") == "a.b"


def test_accuracy_counts_each_task() -> None:
    counts = accuracy([graded("red"), graded("blue"), graded("x", "x", "word"), graded("red")])
    assert counts == {"colour": (2, 3), "word": (1, 1)}
    assert list(counts) == ["colour", "word"]


def test_failures_are_of_all_tasks(tmp_path: Path) -> None:
    given = [graded("red"), *(graded(said, shade=shade) for shade, said in enumerate("abc", start=1))]
    given.append(graded("x", task="word", shade=4))
    saved = save_failures(given, tmp_path / "new" / "folder", 3)
    assert [(name, one.said) for name, one in saved] == [
        ("failure-1.png", "a"), ("failure-2.png", "x"), ("failure-3.png", "b")
    ]  # fmt: skip
    for name, one in saved:
        pixels = np.asarray(Image.open(tmp_path / "new" / "folder" / name))
        assert np.array_equal(pixels, one.question.pixels)
    assert len(save_failures(given, tmp_path, 99)) == 4
    assert save_failures(given[:1], tmp_path, 3) == []


class Handler(BaseHTTPRequestHandler):
    """Says the question's last word, or refuses; keeps what it was asked."""

    def do_GET(self) -> None:
        self._answer(200 if self.headers["authorization"] == "Bearer good" else 401, {"data": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)  # type: ignore[attr-defined]
        words = body["messages"][0]["content"][1]["text"].split()
        status = 500 if words[-1] == "break?" else 200
        self._answer(status, {"choices": [{"message": {"content": words[-1]}}]})

    def log_message(self, *arguments: Any) -> None:
        pass

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def answering() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the address of a server and what it was asked."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.bodies = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server.bodies  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


def about(text: str, shade: int = 0) -> Question:
    return Question("colour", question(shade=shade).pixels, Turn(f"Say {text}", text))


def test_it_asks_as_a_user_asks() -> None:
    done: list[Graded] = []
    given = [about(f"word{number}", number) for number in range(7)]
    with answering() as (url, bodies), connect(url, "good", trust_env=False) as client:
        answers = examine(given, client, model="nano", at_once=3, advance=done.append)
    assert [one.question for one in answers] == given
    assert all(one.is_right and one.seconds > 0 for one in answers)
    assert {one.said for one in done} == {f"word{number}" for number in range(7)}
    (body,) = [body for body in bodies if body["messages"][0]["content"][1]["text"] == "Say word5"]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("nano", 0, 80)
    address = body["messages"][0]["content"][0]["image_url"]
    picture = Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,"))))
    assert np.array_equal(np.asarray(picture), given[5].pixels)


def test_an_answer_that_is_none_ends_it() -> None:
    with (
        answering() as (url, _),
        connect(url, "good", trust_env=False) as client,
        pytest.raises(httpx.HTTPStatusError, match="500"),
    ):
        examine([about("this"), about("break?")], client, model="nano", at_once=2, advance=lambda one: None)


def test_a_wrong_key_and_no_server_are_told_at_once() -> None:
    with answering() as (url, bodies):
        with pytest.raises(httpx.HTTPStatusError, match="401"), connect(url, "bad", trust_env=False):
            pass
        assert bodies == []
    with pytest.raises(httpx.ConnectError), connect(url, "good", trust_env=False):
        pass


@pytest.mark.slow
def test_a_server_with_a_small_network_is_examined(language: Path, lexicon: Lexicon, tmp_path: Path) -> None:
    """Its weights are random, so what it says is wrong; that it says something is what counts."""
    folder = write_seeing(make_lessons(language), tmp_path)
    (tmp_path / "run").mkdir()
    with (
        serving(tmp_path / "home", tmp_path / "run", weights=folder, kv_cache_tokens=4096) as server,
        connect(server.url, KEY, trust_env=False) as client,
    ):
        answers = examine(asked(lexicon, count=2), client, model=MODEL, at_once=2, advance=lambda one: None)
    assert accuracy(answers).keys() == {"short word", "colour"}
    assert len(answers) == 4
    assert any(one.said for one in answers)
