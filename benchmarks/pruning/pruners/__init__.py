"""One file per tool that prunes a model; each runs in a process of its own and imports nothing of the others."""
