"""`slimline up`: every part of the service as one process tree on one machine. No HTTP, no SQL and no tensors here."""
