"""Graph wing: loading, reading, measuring and changing models."""
