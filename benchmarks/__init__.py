"""One file per claim in the README. Each prints ratios measured in one run, and prints a miss as plainly as a hit."""
