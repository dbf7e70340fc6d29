"""Training: on labels, on a teacher, or on plain text."""
