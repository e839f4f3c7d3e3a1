"""The operators, one file per family. None imports another, but a contributed one may build on what it extends."""
