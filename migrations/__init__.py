"""The database's schema, change by change. `slimline migrate` applies them; `make check` fails when the code drifts."""
