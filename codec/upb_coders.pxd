# cython: language_level=3
"""protobuf's own message classes."""
