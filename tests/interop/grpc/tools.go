//go:build tools

// Names the programs that are built as they are: grpc-go's own client and server of the interoperability tests.
package tools

import (
	_ "google.golang.org/grpc/interop/client"
	_ "google.golang.org/grpc/interop/server"
)
