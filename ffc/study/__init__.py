"""A study: from data to a compiled model, step by step, as one TOML file states it."""
