"""A model, or what changed between two, as one HTML page that needs nothing else."""
