"""Why a pass takes a block of a model, and why it leaves another alone."""
