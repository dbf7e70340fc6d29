"""What a CI asks of models: what changed, whether it may, and the smallest model that goes wrong."""
