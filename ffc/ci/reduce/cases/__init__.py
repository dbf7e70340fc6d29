"""What is tried in place of a model that goes wrong: smaller cases, what they must show, and their order."""
