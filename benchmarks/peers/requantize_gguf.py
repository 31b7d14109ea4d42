"""Write a GGUF file once more with its matrices in another number format, so that llama.cpp's fastest can be found.

    llamacpp/bin/pip install gguf
    llamacpp/bin/python benchmarks/peers/requantize_gguf.py MODEL.gguf Q8_0 MODEL-Q8_0.gguf

The `gguf` package's own quantisers do it: every matrix in the file's main format is made floats again and quantised
anew; everything else stays as it is, such as norms in floats and embeddings in a larger format. What is made from Q4_1
is no more accurate than Q4_1: this is for speed, with weights as alike as the formats allow.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import QuantError, dequantize, quantize

# `general.file_type` of a file, which llama.cpp shows.
FORMATS = {
    name: (gguf.GGMLQuantizationType[name], gguf.LlamaFileType[f"MOSTLY_{name}"])
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16")
}
_FLOATS = (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.BF16)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("format", choices=sorted(FORMATS))
    parser.add_argument("destination", type=Path)
    args = parser.parse_args()
    if not args.source.is_file():
        sys.exit(f"{args.source}: no such file")
    if args.destination.exists():
        sys.exit(f"{args.destination}: is there already")
    requantize(args.source, args.format, args.destination)


def requantize(source: Path, name: str, destination: Path) -> None:
    """Raises: ValueError for a tensor that does not fit the format."""
    quantization, file_type = FORMATS[name]
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(
        destination, arch=_text(reader, "general.architecture"), endianess=reader.endianess
    )
    _copy_metadata(reader, writer, file_type)
    replaced = _main_format(reader)
    for tensor in reader.tensors:
        if tensor.tensor_type != replaced:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        try:
            writer.add_tensor(tensor.name, quantize(values, quantization), raw_dtype=quantization)
        except QuantError as error:
            raise ValueError(f"{tensor.name} of shape {values.shape} does not fit {name}: {error}") from error
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _main_format(reader: gguf.GGUFReader) -> gguf.GGMLQuantizationType:
    """Return the quantised format that most tensors have. Raises: ValueError if none is quantised."""
    formats = Counter(tensor.tensor_type for tensor in reader.tensors if tensor.tensor_type not in _FLOATS)
    if not formats:
        raise ValueError("no tensor of the file is quantised")
    found: gguf.GGMLQuantizationType = formats.most_common(1)[0][0]
    return found


def _copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, file_type: gguf.LlamaFileType) -> None:
    for field in reader.fields.values():
        # The writer has its own of these.
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        if field.name == "general.file_type":
            writer.add_file_type(file_type)
            continue
        element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=element)


def _text(reader: gguf.GGUFReader, name: str) -> str:
    field = reader.get_field(name)
    if field is None:
        raise ValueError(f"the file has no {name}")
    return str(field.contents())


if __name__ == "__main__":
    main()
