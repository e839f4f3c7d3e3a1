"""The vocabulary that the server, the worker and the engine share: pydantic models and pure functions, no I/O."""
