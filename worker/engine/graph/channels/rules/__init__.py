"""The rules, one file per family of operators. None imports another but `broadcasting`, which others build on."""
