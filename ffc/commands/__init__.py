"""The commands of ``ffc``, one to a file. What a command needs is imported inside it, so that help answers at once."""
