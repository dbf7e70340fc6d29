"""Training: on labels, on a teacher, or on plain text; how it goes, and in how many processes."""
