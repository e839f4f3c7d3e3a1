"""The database: engine, transactions, types that all tables share. What a table means lives in its slice."""
