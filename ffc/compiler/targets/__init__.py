"""What a target runs on: what its processor does."""
