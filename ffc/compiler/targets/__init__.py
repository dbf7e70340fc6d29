"""What a target runs: the ways to write a function in a runtime's operators, and what its processor does."""
