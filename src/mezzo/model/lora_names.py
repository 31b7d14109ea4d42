"""Names of a merged update's file and tensors (mezzo.model.merged_lora). Imports nothing: converting needs no torch."""

MERGED_LORA = "merged_lora.safetensors"
STORED_A, STORED_B = ".lora_A.weight", ".lora_B.weight"
