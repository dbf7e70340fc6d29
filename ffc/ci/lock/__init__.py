"""What a compiled graph must look like, committed as text, and whether it still does."""
