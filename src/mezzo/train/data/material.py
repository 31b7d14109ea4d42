"""What pictures are filled with: words, numbers, dates, names, prices; and the letters they are written in."""

from __future__ import annotations

import json
import random
import string
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFont

from mezzo.train.data import fonts
from mezzo.train.data.fonts import Split

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_HELD_OUT_WORDS = 0.1
_COMMON = 4000


@dataclass(frozen=True)
class Lexicon:
    """English words, the most frequent first; one in ten is kept for the held-out set."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    @classmethod
    def from_tokenizer(cls, tokenizer_json: Path) -> Lexicon:
        """Take the words that a byte-level BPE tokenizer has whole: its merges are in order of frequency."""
        vocabulary: dict[str, int] = json.loads(tokenizer_json.read_text("utf-8"))["model"]["vocab"]
        words = [
            token[1:]
            for token, _ in sorted(vocabulary.items(), key=lambda item: item[1])
            if token.startswith("Ġ") and len(token) > 2 and token[1:].isascii() and token[1:].isalpha()
        ]
        is_held_out = [_is_held_out(word) for word in words]
        return cls(
            tuple(word for word, held_out in zip(words, is_held_out, strict=True) if not held_out),
            tuple(word for word, held_out in zip(words, is_held_out, strict=True) if held_out),
        )


@dataclass(frozen=True)
class Material:
    """A source of random things of one split. The same `rng` state gives the same things.

    progress   from 0 to 1, how far a scene that grows harder has grown
    """

    rng: random.Random
    split: Split
    lexicon: Lexicon
    progress: float = 1.0

    def font(self, size: int) -> ImageFont.FreeTypeFont:
        """Return a face at `size` pixels per em: of an everyday typeface half of the time, of any else."""
        if self.rng.random() < 0.5:
            return self.everyday_font(size)
        return fonts.load(fonts.random_face(self.rng, self.split).path, size)

    def everyday_font(self, size: int) -> ImageFont.FreeTypeFont:
        """Return a face of a typeface that most documents are set in, where this machine has one."""
        return fonts.load(fonts.everyday_face(self.rng, self.split).path, size)

    def word(self, max_length: int = 12) -> str:
        """Return a word of 2 to `max_length` letters in lower, title or upper case."""
        words = self.lexicon.train if self.split == "train" else self.lexicon.held_out
        while True:
            common = self.rng.random() < 0.5 and len(words) > _COMMON
            word = words[self.rng.randrange(_COMMON if common else len(words))]
            if len(word) <= max_length:
                return self._case(word)

    def words(self, count: int, max_length: int = 12) -> str:
        return " ".join(self.word(max_length) for _ in range(count))

    def spliced_word(self, max_length: int = 12) -> str:
        """Return the beginning of one word and the end of another: spelled like English, never seen before.

        A small decoder that reads known words only learns to guess them from a few of their letters.
        """
        while True:
            first, second = (self.word(max_length).lower() for _ in range(2))
            word = first[: self.rng.randint(1, len(first))] + second[self.rng.randrange(len(second)) :]
            word = word[:max_length]
            if not _is_held_out(word):
                return self._case(word)

    def letters(self, length: int) -> str:
        """Return letters that make no word, so that reading cannot be guessing."""
        return self._case("".join(self.rng.choice(string.ascii_letters) for _ in range(length)))

    def digits(self, length: int) -> str:
        return "".join(self.rng.choice(string.digits) for _ in range(length))

    def integer(self, low: int, high: int) -> int:
        """Return a whole number; each number of digits is as likely as another."""
        num_digits = self.rng.randint(len(str(max(low, 1))), len(str(high)))
        smallest = 10 ** (num_digits - 1) if num_digits > 1 else 0
        return max(low, min(high, self.rng.randint(smallest, 10**num_digits - 1)))

    def number(self) -> str:
        """Return a number as it is written: whole, with decimals, thousands, a sign or a percent sign."""
        kind = self.rng.random()
        if kind < 0.45:
            return self.digits(self.rng.randint(1, 8)).lstrip("0") or "0"
        if kind < 0.75:
            return f"{self.integer(0, 9999)}.{self.digits(self.rng.randint(1, 2))}"
        if kind < 0.87:
            return f"{self.integer(1000, 999_999):,}"
        return self.rng.choice(("{}%", "-{}", "+{}", "#{}")).format(self.integer(0, 999))

    def amount(self, high: int = 500) -> int:
        """Return an amount of money in cents."""
        return self.integer(0, high) * 100 + self.rng.choice((0, 50, 99, 95, self.rng.randrange(100)))

    def date(self) -> str:
        """Return a date in one of the usual spellings."""
        year, month, day = self.rng.randint(1990, 2035), self.rng.randint(1, 12), self.rng.randint(1, 28)
        name = MONTHS[month - 1]
        spellings = (
            f"{year}-{month:02}-{day:02}", f"{day:02}/{month:02}/{year}", f"{day:02}.{month:02}.{year}",
            f"{day} {name} {year}", f"{day} {name[:3]} {year}", f"{name[:3]} {day}, {year}",
            f"{month}/{day}/{year % 100:02}",
        )  # fmt: skip
        return self.rng.choice(spellings)

    def time(self) -> str:
        return f"{self.rng.randint(0, 23):02}:{self.rng.randint(0, 59):02}"

    def code(self) -> str:
        """Return an identifier, like a booking or a part has."""
        rng = self.rng
        upper = "".join(rng.choice(string.ascii_uppercase) for _ in range(rng.randint(1, 4)))
        return rng.choice((f"{upper}-{self.digits(rng.randint(2, 5))}", f"{upper}{self.digits(rng.randint(2, 4))}",
                           f"{self.digits(2)}-{upper}"))  # fmt: skip

    def token(self) -> str:
        """Return anything that stands between two spaces, of at most 12 characters."""
        kind = self.rng.random()
        if kind < 0.5:
            return self.word()
        if kind < 0.68:
            return self.letters(self.rng.randint(1, 8))
        if kind < 0.88:
            return self.number()
        if kind < 0.94:
            return self.code()
        return self.rng.choice((self.time, self._scribble))()

    def _scribble(self) -> str:
        signs = string.digits + string.ascii_letters + string.punctuation
        return "".join(self.rng.choice(signs) for _ in range(self.rng.randint(1, 6)))

    def _case(self, word: str) -> str:
        kind = self.rng.random()
        if kind < 0.45:
            return word.lower()
        return word.capitalize() if kind < 0.75 else word.upper()


def _is_held_out(word: str) -> bool:
    return fonts.share(word.lower()) < _HELD_OUT_WORDS
