"""What a pass is, how passes run, and how each step is proved and reported."""
