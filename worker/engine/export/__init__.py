"""Output formats: one file each. What goes into a file is decided before; only how it is written lives here."""
