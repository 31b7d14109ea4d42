"""A whole data file as samples. Every line is read and checked before anything is learnt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mezzo.kit.files import sha256_of_file
from mezzo.protocol.errors import ApiError
from mezzo.train.documents.files import load_attachments
from mezzo.train.documents.lines import InvalidLine, parse_line
from mezzo.train.documents.samples import Sample, SampleMaker, joined
from mezzo.train.errors import CannotTrain

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Corpus:
    """The samples of a file, line after line; pictures stay on the disk.

    num_long   answers left out because they and their prompts are longer than wanted
    sha256     of the file
    """

    path: Path
    maker: SampleMaker
    samples: list[Sample]
    offsets: dict[int, int]
    num_long: int
    sha256: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all tokens and pictures: of what the file, its pictures and the tokenizer come to together."""
        digest = hashlib.sha256()
        for sample in self.samples:
            pictures = [picture.hex() for picture in sample.pictures]
            digest.update(json.dumps([sample.token_ids, sample.targets, pictures]).encode())
        return digest.hexdigest()

    def pixels(self, sample: Sample) -> list[NDArray[np.uint8]]:
        """Read the pictures of a sample again, (height, width, 3) uint8 each, as its prompt has them.

        Raises: CannotTrain if they, or the line, are no longer what they were.
        """
        with self.path.open("rb") as file:
            file.seek(self.offsets[sample.line])
            line = file.readline()
        try:
            request = parse_line(line).request
            begin = request.model_copy(update={"messages": request.messages[: sample.last_answer]})
            attachments = load_attachments(begin, self.path.parent)
            images = [
                placed.image for placed in self.maker.prompt(request, sample.last_answer, attachments).images
            ]
        except (InvalidLine, ApiError) as error:
            raise _at(self.path, sample.line, str(error)) from error
        if tuple(image.digest for image in images) != sample.pictures:
            raise _at(self.path, sample.line, "its pictures are not those that they were when the run began")
        return [image.pixels for image in images]


def read_corpus(
    path: Path,
    maker: SampleMaker,
    *,
    max_tokens: int,
    skip_long: bool = False,
    advance: Callable[[int], None] = lambda num_lines: None,
) -> Corpus:
    """Read a .jsonl file; pictures are named relative to its folder. Empty lines are passed over.

    max_tokens   of a prompt with its answer; longer ones are left out and counted with `skip_long`
    advance      called with the number of lines read so far
    Raises: CannotTrain naming file, line and field; OSError.
    """
    samples: list[Sample] = []
    offsets: dict[int, int] = {}
    num_long = 0
    for number, offset, line in _lines(path):
        try:
            conversation = parse_line(line)
            attachments = load_attachments(conversation.request, path.parent)
            found = maker.samples(conversation, attachments, number)
        except (InvalidLine, ApiError) as error:
            raise _at(path, number, str(error)) from error
        fitting = [sample for sample in found if len(sample.token_ids) <= max_tokens]
        if len(fitting) < len(found) and not skip_long:
            long = next(sample for sample in found if len(sample.token_ids) > max_tokens)
            raise _at(
                path,
                number,
                f"messages[{long.last_answer}]: {len(long.token_ids)} tokens with its prompt, more than --max-tokens "
                f"{max_tokens}; raise it, or leave such answers out with --skip-long",
            )
        num_long += len(found) - len(fitting)
        samples += joined(fitting)
        offsets[number] = offset
        advance(number)
    if not offsets:
        raise CannotTrain(f"{path} is empty")
    if not samples:
        raise CannotTrain(f"{path} has no answer that fits into --max-tokens {max_tokens}")
    return Corpus(path, maker, samples, offsets, num_long, sha256_of_file(path))


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, offset and bytes of each line that has something on it."""
    offset = 0
    with path.open("rb") as file:
        for number, whole in enumerate(file, 1):
            line = whole.removeprefix(_BYTE_ORDER_MARK) if number == 1 else whole
            if line.strip():
                yield number, offset + len(whole) - len(line), line
            offset += len(whole)


def _at(path: Path, line: int, words: str) -> CannotTrain:
    return CannotTrain(f"{path}, line {line}: {words}")
