"""Proving a step: the inputs it is checked on, the contracts it is held to, and what was measured."""
