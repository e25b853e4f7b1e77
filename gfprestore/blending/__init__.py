"""How a restored face becomes part of its photo again: where it replaces it, and with whose tone, detail and grain."""
