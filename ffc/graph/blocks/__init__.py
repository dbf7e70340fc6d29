"""Finding the blocks of an encoder: attention, feed-forward networks, norms, embeddings, heads, and tokens read."""
