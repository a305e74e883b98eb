//go:build tools

package main

// Kitex's code generator belongs to the module, so that go.mod pins it; tests/support/kitex.py builds it.
import _ "github.com/cloudwego/kitex/tool/cmd/kitex"
