"""Which prompt encoder a checkpoint folder needs."""

from __future__ import annotations

from pathlib import Path

from mezzo.prompt.encoder import PromptEncoder
from mezzo.prompt.media.image_headers import ImageLimits
from mezzo.prompt.mistral.files import mistral_tokenizer_file
from mezzo.prompt.template_encoder import TemplateEncoder


def load_encoder(folder: Path, *, image_limits: ImageLimits | None = None) -> PromptEncoder:
    """Read the tokenizer and prompt format of a checkpoint.

    Mistral's own files come first: what they say is how the model was trained, and a chat template beside them only
    repeats it.
    image_limits: of the files that are decoded, None for the defaults.
    Raises: UnsupportedTokenizer saying what is missing or not supported.
    """
    if (file := mistral_tokenizer_file(folder)) is not None:
        # mistral_common takes half a second to import: nobody waits for it who serves another model.
        from mezzo.prompt.mistral.encoder import MistralEncoder  # noqa: PLC0415

        return MistralEncoder.from_file(file, image_limits=image_limits)
    return TemplateEncoder.from_folder(folder, image_limits=image_limits)
