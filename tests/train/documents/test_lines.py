"""A line that cannot be learnt is refused by file, line and field, in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mezzo.prompt.load import load_encoder
from mezzo.train.documents.corpus import Corpus, read_corpus
from mezzo.train.documents.samples import SampleMaker
from mezzo.train.errors import CannotTrain
from tests.train.documents.small import about_picture, chat_checkpoint, png, said, user, write_lines

GOOD = json.dumps({"messages": [user("a"), said("b")]})


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> SampleMaker:
    return SampleMaker(load_encoder(chat_checkpoint(tmp_path_factory.mktemp("text"))), can_see=False)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> SampleMaker:
    return SampleMaker(
        load_encoder(chat_checkpoint(tmp_path_factory.mktemp("eyes"), sees=True)), can_see=True
    )


def read(path: Path, text: str | bytes, maker: SampleMaker, **options: Any) -> Corpus:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_corpus(path, maker, **{"max_tokens": 256, **options})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON: EOF while parsing an object at column 1"),
        (b'{"messages": "\xff"}', "not JSON: "),
        ('["messages"]', "not a JSON object with `messages`"),
        ("{}", "messages: Field required"),
        ('{"messages": []}', "messages: no assistant message, so nothing to learn"),
        (
            '{"messages": [], "prompt": "a"}',
            "prompt: not a field of the format, which has messages and tools",
        ),
        ([user("a")], "messages: no assistant message, so nothing to learn"),
        (
            [user("a"), said("b"), user("c")],
            "messages[2].role: the last message is the answer to learn, not user's",
        ),
        ([user(5), said("b")], "messages[0].content: Input should be a valid string"),
        ([{"role": "user"}, said("b")], "messages[0].content: Field required"),
        ([user("a"), said("b", mood="good")], "messages[1].mood: Extra inputs are not permitted"),
        ([{"role": "bot", "content": "a"}, said("b")], "messages[0]: Input tag 'bot'"),
        ([user([{"type": "text"}]), said("b")], "messages[0].content[0].text: Field required"),
        ([user("a"), said("b", weight=2)], "messages[1].weight: must be 0 or 1"),
        (
            [user("a"), said("b", weight=0)],
            "messages: every assistant message has weight 0, so nothing to learn",
        ),
        ([user("a"), said("b", prefix=True)], "messages[1].prefix: only a request has one"),
        ([said("b")], "messages[0]: Conversation must have at least one message"),
        ([user("a"), said("")], "messages[1]: Assistant message must have either content or tool_calls"),
        ([user("a"), said("b"), said("c")], "messages[2]: Expected last role User or Tool"),
        ([about_picture("a.png"), said("b")], "messages[0].content[0]: image_url content is not enabled"),
    ],
)
def test_what_is_refused(tmp_path: Path, blind: SampleMaker, line: Any, words: str) -> None:
    (tmp_path / "a.png").write_bytes(png((0, 0, 0)))
    text = json.dumps({"messages": line}) if isinstance(line, list) else line
    data = text if isinstance(text, bytes) else text.encode()
    path = tmp_path / "data.jsonl"
    with pytest.raises(CannotTrain) as caught:
        read(path, GOOD.encode() + b"\n\n" + data, blind)
    assert str(caught.value).startswith(f"{path}, line 3: {words}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, blind: SampleMaker, text: str) -> None:
    with pytest.raises(CannotTrain, match=r"data.jsonl is empty"):
        read(tmp_path / "data.jsonl", text, blind)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://example.org/a.png", "https://example.org/a.png is not fetched: training reads no URLs"),
        ("file:///etc/passwd", "file:///etc/passwd is not fetched"),
        ("/etc/passwd", "/etc/passwd is not a path below the folder of the data file"),
        ("../a.png", "../a.png is not a path below the folder of the data file"),
        ("none.png", "none.png cannot be read: No such file or directory"),
        ("a\0b", "a\0b cannot be read: "),
        ("data.jsonl", "JSON is not supported; send PNG"),
        ("data:image/png;base64,AAAA", ""),
    ],
)
def test_pictures_that_cannot_be_had(tmp_path: Path, seeing: SampleMaker, url: str, words: str) -> None:
    data = write_lines(tmp_path / "data.jsonl", [about_picture(url), said("b")])
    with pytest.raises(CannotTrain) as caught:
        read_corpus(data, seeing, max_tokens=256)
    assert str(caught.value).startswith(f"{data}, line 1: messages[0].content[0]: {words}")


def test_long_answers_are_refused_or_counted(tmp_path: Path, blind: SampleMaker) -> None:
    short, long = [user("a"), said("b")], [user("a"), said("b"), user("a"), said("b" * 200)]
    data = write_lines(tmp_path / "data.jsonl", short, long)
    with pytest.raises(
        CannotTrain, match=r"line 2: messages\[3\]: 2\d\d tokens .* more than --max-tokens 100; .*--skip-long"
    ):
        read_corpus(data, blind, max_tokens=100)
    corpus = read_corpus(data, blind, max_tokens=100, skip_long=True)
    assert corpus.num_long == 1
    assert [sample.line for sample in corpus.samples] == [1, 2]
    with pytest.raises(CannotTrain, match="has no answer that fits into --max-tokens 5"):
        read_corpus(data, blind, max_tokens=5, skip_long=True)


def test_a_byte_order_mark_is_no_text(tmp_path: Path, seeing: SampleMaker) -> None:
    (tmp_path / "a.png").write_bytes(png((9, 9, 9)))
    line = json.dumps({"messages": [about_picture("a.png"), said("b")]})
    corpus = read(tmp_path / "data.jsonl", b"\xef\xbb\xbf" + line.encode(), seeing)
    assert [pixels.shape for pixels in corpus.pixels(corpus.samples[0])] == [(16, 24, 3)]


def test_pictures_that_changed_meanwhile(tmp_path: Path, seeing: SampleMaker) -> None:
    (tmp_path / "a.png").write_bytes(png((9, 9, 9)))
    corpus = read_corpus(
        write_lines(tmp_path / "data.jsonl", [about_picture("a.png"), said("b")]), seeing, max_tokens=256
    )
    (tmp_path / "a.png").write_bytes(png((0, 9, 9)))
    with pytest.raises(
        CannotTrain, match="line 1: its pictures are not those that they were when the run began"
    ):
        corpus.pixels(corpus.samples[0])
