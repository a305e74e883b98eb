"""Servers of ``/bench.Echo/Echo``: google.protobuf.BytesValue in, the same out. Each prints its port and process id as JSON."""
