"""Distillation: what a student learns from its teacher, and which of its layers it is made of."""
