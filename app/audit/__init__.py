"""The audit log: which key changed what, from where, and what it was refused."""
