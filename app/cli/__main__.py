"""`python -m app.cli`: the `slimline` command without its script."""

from app.cli import main

main()
