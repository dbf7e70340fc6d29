"""Shapes of values as expressions over the sizes that a graph leaves open, and the rules that tell them."""
