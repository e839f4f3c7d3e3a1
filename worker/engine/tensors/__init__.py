"""Pure functions on arrays: no graph, no files, no state. Every number here is tested against NumPy, SciPy or torch."""
