"""One file per server under measurement, started as ``python -m bench.peers.<name> --port 0 [--cpu N]``.

A peer serves ``bench/idl/bench.thrift`` over framed Thrift binary from one process, and prints one JSON line when it
listens: ``{"port": 40321, "pid": 4711}``. Its handlers answer with a new response around the request's values.
"""
