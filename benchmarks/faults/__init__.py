"""Breaking a whole service on purpose, from outside: its parts as processes, who kills them, and what must hold after.

Run: `python -m benchmarks.faults [--scene machines] [--minutes 5] [--jobs 200] [--seed 0] [--json]`.
"""
