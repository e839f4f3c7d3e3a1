"""Our quantization beside its peers' on real models and data, in one run; `__main__` says how to run it."""
