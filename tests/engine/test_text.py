"""Text as it grows, against a reference that looks at the whole of it, one character at a time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mezzo.engine.text import TextStream


def reference(data: bytes, stop: tuple[str, ...]) -> tuple[str, bool]:
    """Decode everything, then read it from the left until a stop string is complete."""
    text = data.decode("utf-8", errors="replace")
    for end in range(len(text) + 1):
        complete = [s for s in stop if text[:end].endswith(s)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


def stream(tokens: list[bytes], stop: tuple[str, ...]) -> tuple[list[str], bool]:
    """Feed tokens as the engine does: until a stop string is complete, then finish."""
    text = TextStream(stop)
    pieces = []
    for token in tokens:
        pieces.append(text.feed(token))
        if text.is_stopped:
            break
    pieces.append(text.flush())
    return pieces, text.is_stopped


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(borders)]


# Few characters, so that stop strings occur, overlap and nearly occur; one of each length in UTF-8.
LETTERS = st.text(alphabet="abé€😀\ufffd", max_size=12)
BYTES = st.one_of(
    LETTERS.map(str.encode),
    st.text(max_size=12).map(str.encode),
    st.lists(
        st.sampled_from([b"a", b"b", b"\xc3", b"\xa9", b"\xe2", b"\x82", b"\xac", b"\xf0\x9f", b"\xff"])
    ).map(b"".join),
    st.binary(max_size=12),
)
STOPS = st.lists(st.text(alphabet="abé€😀\ufffd", min_size=1, max_size=4), max_size=4).map(tuple)


@settings(max_examples=600, deadline=None)
@given(data=BYTES, stop=STOPS, cuts=st.lists(st.integers(0, 100), max_size=10))
@example(data=b"ab", stop=("ab", "b"), cuts=[1])
@example(data=b"aab", stop=("ab",), cuts=[1, 2])
@example(data="€".encode(), stop=("€",), cuts=[1, 2])
def test_every_split_gives_the_text_of_the_whole(data: bytes, stop: tuple[str, ...], cuts: list[int]) -> None:
    pieces, is_stopped = stream(split(data, cuts), stop)
    expected, ends_with_stop = reference(data, stop)
    assert "".join(pieces) == expected
    assert is_stopped == ends_with_stop


@settings(max_examples=200, deadline=None)
@given(data=BYTES, stop=STOPS, cuts=st.lists(st.integers(0, 100), max_size=10))
def test_what_was_shown_is_never_taken_back(data: bytes, stop: tuple[str, ...], cuts: list[int]) -> None:
    """Each piece is a true part of the final text at the moment it is shown, and holds no stop string."""
    shown = ""
    expected = reference(data, stop)[0]
    for piece in stream(split(data, cuts), stop)[0]:
        shown += piece
        assert expected.startswith(shown)
        assert not any(s in shown for s in stop)


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="aé€😀👩‍👩‍👧", max_size=12), cuts=st.lists(st.integers(0, 100), max_size=12))
def test_no_piece_holds_a_part_of_a_character(text: str, cuts: list[int]) -> None:
    for piece in stream(split(text.encode(), cuts), ())[0]:
        assert "\ufffd" not in piece


def test_an_unfinished_character_at_the_end_becomes_one_replacement() -> None:
    text = TextStream()
    assert text.feed(b"ok \xf0\x9f\x98") == "ok "
    assert text.flush() == "\ufffd"


def test_text_that_might_begin_a_stop_string_is_held_and_no_more_than_that() -> None:
    text = TextStream(("\n\nUser:",))
    assert text.feed(b"Hi.\n") == "Hi."
    assert text.feed(b"\nUs") == ""
    assert text.feed(b"ually") == "\n\nUsually"
    assert text.flush() == ""


def test_held_text_comes_out_at_the_end() -> None:
    text = TextStream(("END",))
    assert text.feed(b"the EN") == "the "
    assert text.flush() == "EN"
    assert not text.is_stopped


@pytest.mark.parametrize("tokens", [[b"one END two"], [b"one E", b"ND two"], [b"one ", b"E", b"N", b"D"]])
def test_the_stop_string_and_what_follows_are_no_part_of_the_text(tokens: list[bytes]) -> None:
    pieces, is_stopped = stream(tokens, ("END",))
    assert "".join(pieces) == "one "
    assert is_stopped


def test_the_stop_string_that_is_complete_first_wins_over_one_that_began_earlier() -> None:
    assert stream([b"xabcd"], ("abcd", "bc"))[0][0] == "xa"


def test_of_two_that_end_together_the_longer_wins() -> None:
    assert stream([b"xabc"], ("bc", "abc"))[0][0] == "x"


def test_a_stop_string_can_be_completed_by_a_replacement_at_the_very_end() -> None:
    pieces, is_stopped = stream([b"a\xe2"], ("\ufffd",))
    assert "".join(pieces) == "a"
    assert is_stopped
