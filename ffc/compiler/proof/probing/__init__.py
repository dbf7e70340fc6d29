"""What the inputs of a model are, read off its graph and found out by running it, so that probes can be made for it."""
