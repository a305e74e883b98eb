//go:build tools

// Names the programs that are built as they are: grpc-go's own client and server of the interoperability tests, and its client of the negative ones.
package tools

import (
	_ "google.golang.org/grpc/interop/client"
	_ "google.golang.org/grpc/interop/http2"
	_ "google.golang.org/grpc/interop/server"
)
