"""Jobs: what is to be done to a model, how far it is, and what came of it."""
