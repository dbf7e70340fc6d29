"""Graphs as records, and which node of one is which of another."""
