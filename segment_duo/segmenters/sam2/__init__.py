"""SAM 2.1: encoder, prompts, automatic generation over the unmodified ``sam2`` package. Importing this package loads no torch."""
