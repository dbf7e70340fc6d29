"""Models as graphs: their files, shapes, blocks and functions, what they cost, and running them."""
