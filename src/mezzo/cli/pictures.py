"""Pictures that `mezzo chat` attaches to a message: files as `data:` URLs, http(s) URLs as they are."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path

from mezzo.prompt.media.image_headers import ImageError, ImageLimits, read_header

_PASSED_ON = ("http://", "https://")


class NotAPicture(Exception):
    """A file that cannot be attached; the message is one line that begins with its name."""


@dataclass(frozen=True)
class Picture:
    """An attached picture.

    name   as the person gave it: a path or a URL
    url    what the request holds
    """

    name: str
    url: str = field(repr=False)

    def chunk(self) -> dict[str, str]:
        """Return the part of a message's content, in the API's form."""
        return {"type": "image_url", "image_url": self.url}


def read_picture(name: str) -> Picture:
    """Read the file of this name, or take the URL. The format is told from the content, not from the name.

    A file is judged by the limits that a server has unless it was told otherwise. Raises: NotAPicture.
    """
    if name.lower().startswith(_PASSED_ON):
        return Picture(name, name)
    path, limits = Path(name).expanduser(), ImageLimits()
    try:
        if path.exists() and not path.is_file():
            raise NotAPicture(f"{name} is not a file")
        size = path.stat().st_size
        if size > limits.max_bytes:
            raise NotAPicture(f"{name}: the file has {size} bytes, at most {limits.max_bytes} can be sent")
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise NotAPicture(f"{name} cannot be read: {reason}") from error
    try:
        header = read_header(data, limits)
    except ImageError as error:
        raise NotAPicture(f"{name}: {error}") from error
    encoded = base64.b64encode(data).decode("ascii")
    return Picture(name, f"data:image/{header.format.lower()};base64,{encoded}")
