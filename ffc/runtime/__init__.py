"""Running models: how long an answer takes, what energy it costs, and on which machine. Needs no torch."""
