"""Who may come in: a gate around every route, the table of what each route needs, and how often a key may ask."""
