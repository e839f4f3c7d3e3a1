"""Waiting and being taken: which job goes next, how many go before, and what has waited too long. Queries only."""
