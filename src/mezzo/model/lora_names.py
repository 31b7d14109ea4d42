"""What low-rank updates are called in files, tensors as PEFT calls them. Imports nothing: converting needs no torch."""

MERGED_LORA = "merged_lora.safetensors"
STORED_A, STORED_B = ".lora_A.weight", ".lora_B.weight"
