"""Rows of text: files of records, their columns of text, and tokenizers that turn texts into arrays; no torch."""
