"""What can be set by a command's options, by the keys of a file, and from Python: each stated once, without torch."""
