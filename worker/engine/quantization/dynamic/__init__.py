"""Dynamic quantization of one operator family a file; `rules` is their table, `draft` what they share."""
