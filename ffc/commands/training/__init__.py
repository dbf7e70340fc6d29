"""The commands that make weights, one to a file; they need the extra ``train``."""
