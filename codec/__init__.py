"""Bytes ⇄ messages: sans-IO, and the words that all rooms share."""
