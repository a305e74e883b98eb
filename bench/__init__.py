"""The benchmark: weego beside its peers and beside the floor, in one run.

``make bench`` (or ``python -m bench``) measures; ``docs/benchmarks.md`` says how, and how to read the result.
"""
