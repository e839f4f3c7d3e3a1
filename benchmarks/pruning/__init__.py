"""Our structured pruning beside Torch-Pruning's on real models, in one run; `__main__` says how to run it."""
