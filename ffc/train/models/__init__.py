"""Models in torch: where they come from, how they are kept, and what their layers are made of."""
