"""The held-out examination: pictures that training never drew, asked through the API as a user would ask.

Fonts, words, wordings, layouts and value ranges are those kept for it. An answer is right if it is the expected text,
character for character, but for space around it and a final full stop.
"""

from __future__ import annotations

import base64
import io
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mezzo.train.data.material import Lexicon
from mezzo.train.data.mixture import Size, draw
from mezzo.train.data.picture import Turn

_TIMEOUT_S = 120
_MAX_TOKENS = 80
_MOST_PICTURES_FOR_ONE = 60  # a skill that so many pictures in a row do not ask for is not drawn at this size


@dataclass(frozen=True)
class Task:
    """A line of the card: what is asked for, of which scene, in pictures of which sizes."""

    name: str
    scene: str
    skills: tuple[str, ...]
    sizes: tuple[Size, ...]
    accepts: Callable[[Turn], bool] = lambda turn: True


@dataclass(frozen=True)
class Question:
    """One question of the examination; pixels uint8 (height, width, 3)."""

    task: str
    pixels: NDArray[np.uint8]
    turn: Turn


@dataclass(frozen=True)
class Graded:
    """A question with what the model said, and how long it took in seconds."""

    question: Question
    said: str
    seconds: float

    @property
    def is_right(self) -> bool:
        return normalized(self.said) == normalized(self.question.turn.answer)


def normalized(text: str) -> str:
    """Drop what is no part of an answer: space around it, a final full stop."""
    return " ".join(text.split()).removesuffix(".")


def questions(tasks: tuple[Task, ...], per_task: int, seed: int, lexicon: Lexicon) -> Iterator[Question]:
    """Draw `per_task` questions for each task, from as many pictures; the same for the same seed."""
    for task in tasks:
        rng = random.Random(f"{seed}/{task.name}")
        found = missed = 0
        while found < per_task:
            size = rng.choice(task.sizes)
            picture = draw(
                task.scene, random.Random(rng.getrandbits(64)), size, 32, split="held_out", lexicon=lexicon
            )
            fitting = [turn for turn in picture.turns if turn.skill in task.skills and task.accepts(turn)]
            if not fitting:
                missed += 1
                if missed > _MOST_PICTURES_FOR_ONE * (found + 1):
                    raise LookupError(
                        f"pictures of {task.scene} hardly ever ask for {', '.join(task.skills)}"
                    )
                continue
            found += 1
            yield Question(task.name, picture.pixels, rng.choice(fitting))


@contextmanager
def connect(url: str, key: str, *, trust_env: bool) -> Iterator[httpx.Client]:
    """Open a client of the server at `url`; `trust_env` goes through the environment's proxies.

    Raises: httpx.HTTPError where none answers, or it does not know the key.
    """
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S, trust_env=trust_env) as client:
        client.get("/v1/models").raise_for_status()
        yield client


def examine(
    asked: list[Question],
    client: httpx.Client,
    *,
    model: str,
    at_once: int,
    advance: Callable[[Graded], None],
) -> list[Graded]:
    """Ask a server, `at_once` questions at a time. Raises: httpx.HTTPError for an answer that is none."""

    def ask(question: Question) -> Graded:
        graded = _ask(client, model, question)
        advance(graded)
        return graded

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(ask, asked))


def accuracy(graded: list[Graded]) -> dict[str, tuple[int, int]]:
    """Return for each task how many answers are right, and of how many."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in graded:
        counts[one.question.task][0] += one.is_right
        counts[one.question.task][1] += 1
    return {task: (right, count) for task, (right, count) in counts.items()}


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode pixels (height, width, 3) as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def save_failures(graded: list[Graded], folder: Path, count: int) -> list[tuple[str, Graded]]:
    """Write pictures of the first failures, spread over the tasks, as `failure-N.png`; return names and failures."""
    by_task: dict[str, list[Graded]] = defaultdict(list)
    for one in graded:
        if not one.is_right:
            by_task[one.question.task].append(one)
    chosen: list[Graded] = []
    while len(chosen) < count and any(by_task.values()):
        for failures in by_task.values():
            if failures and len(chosen) < count:
                chosen.append(failures.pop(0))
    folder.mkdir(parents=True, exist_ok=True)
    named = [(f"failure-{number}.png", one) for number, one in enumerate(chosen, start=1)]
    for name, one in named:
        (folder / name).write_bytes(png(one.question.pixels))
    return named


def _ask(client: httpx.Client, model: str, question: Question) -> Graded:
    address = "data:image/png;base64," + base64.b64encode(png(question.pixels)).decode()
    content = [{"type": "image_url", "image_url": address}, {"type": "text", "text": question.turn.question}]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": _MAX_TOKENS,
    }
    response = client.post("/v1/chat/completions", json=body)
    response.raise_for_status()
    said: str = response.json()["choices"][0]["message"]["content"]
    return Graded(question, said, response.elapsed.total_seconds())
