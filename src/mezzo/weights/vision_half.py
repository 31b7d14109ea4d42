"""A vision half that mezzo trained and ships: its files, its numbers, and what a conversion with it depends on.

The folder of one holds
    vision.json           its configuration, in the words of a Mistral 3 config.json, and the SHA-256 of its tensors
    vision.safetensors    its tensors, and a low-rank update of the decoder that it was trained with
    chat_template.jinja   the language half's prompt format, with a place for images

Imports are light: a server that starts computes the name of the converted folder from here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezzo.weights.errors import WeightsError

SETTINGS, TENSORS, CHAT_TEMPLATE = "vision.json", "vision.safetensors", "chat_template.jinja"
IMAGE, IMAGE_BREAK, IMAGE_END = "[IMG]", "[IMG_BREAK]", "[IMG_END]"
"""What image tokens are called in every Pixtral and Mistral 3 checkpoint."""
# Written out in full: what a file leaves out would become the default of some class.
_REQUIRED = frozenset(
    {
        "vision_config",
        "spatial_merge_size",
        "projector_hidden_act",
        "multimodal_projector_bias",
        "image_mean",
        "image_std",
        "sha256",
    }
)
_REQUIRED_OF_TOWER = frozenset(
    {
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "image_size",
        "patch_size",
        "rope_theta",
        "hidden_act",
    }
)


@dataclass(frozen=True)
class VisionHalf:
    """Where a vision half is, and which control tokens of its language half become image tokens.

    *_token   as the language half's tokenizer calls it; nothing may use it, for it is renamed
    """

    folder: Path
    image_token: str
    image_break_token: str
    image_end_token: str

    @property
    def renamed_tokens(self) -> dict[str, str]:
        """Return old name -> new name."""
        return {
            self.image_token: IMAGE,
            self.image_break_token: IMAGE_BREAK,
            self.image_end_token: IMAGE_END,
        }

    def digest(self) -> str:
        """Return a SHA-256, in hexadecimal, of all that the files put into a conversion.

        The tensors are in it by the SHA-256 that vision.json gives. Raises: WeightsError for a file that is missing.
        """
        digest = hashlib.sha256()
        for name in (SETTINGS, CHAT_TEMPLATE):
            content = self._read(name).encode()
            digest.update(f"{len(content)}\n".encode() + content)
        return digest.hexdigest()

    def settings(self) -> dict[str, Any]:
        """Read vision.json. Raises: WeightsError if it is missing, no JSON object, or lacks a number."""
        path = self.folder / SETTINGS
        try:
            settings = json.loads(self._read(SETTINGS))
        except ValueError as error:
            raise WeightsError(f"{path} is not readable JSON.", detail=str(error)) from error
        if not isinstance(settings, dict) or not isinstance(settings.get("vision_config", {}), dict):
            raise WeightsError(f"{path} holds no JSON object with a vision_config.")
        missing = sorted(_REQUIRED - settings.keys())
        missing += sorted(
            f"vision_config.{name}" for name in _REQUIRED_OF_TOWER - settings.get("vision_config", {}).keys()
        )
        if missing:
            raise WeightsError(f"{path} lacks {', '.join(missing)}.")
        return settings

    def chat_template(self) -> str:
        """Read the chat template. Raises: WeightsError if it is missing."""
        return self._read(CHAT_TEMPLATE)

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise WeightsError(
                f"This installation of mezzo lacks {self.folder / name}, a part of its own weights.",
                hint="Install mezzo again.",
                detail=str(error),
            ) from error
