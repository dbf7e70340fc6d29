"""What changed between two models, by meaning and not by name."""
