"""The operators, one file per family. Each file enters its own into the table; none imports another family."""
