"""Methods: the catalogue of what can be done to a model. It is made from `app.contracts.recipe`; nothing is stored."""
