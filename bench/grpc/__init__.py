"""gRPC under load: weego's server and grpcio's, grpc-go's, by h2load, in one run. See docs/benchmarks.md."""
