"""The dialect: the functions of domain ``ffc``, and what writes, changes and rounds graphs of them."""
