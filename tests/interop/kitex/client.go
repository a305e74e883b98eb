package main

import (
	"fmt"
	"os"
	"reflect"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/connpool"
	"github.com/cloudwego/kitex/pkg/remote/codec"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/transport"

	"weego/interop/kitex/kitex_gen/newer/conversation"
)

// talk is one check's view of the server: whom to call and how.
type talk struct {
	address, transport string
	caller, callee     string
	timeout            time.Duration
	bare, checksum     bool
	client             conversation.Client
}

// failure is what a check panics with.
type failure string

var transports = map[string]transport.Protocol{
	"buffered":        transport.PurePayload,
	"framed":          transport.Framed,
	"ttheader":        transport.TTHeader,
	"ttheader-framed": transport.TTHeaderFramed,
	"ttheader-shared": transport.TTHeader,
}

// options are a client's: long connections, and unless it is bare what Kitex needs to fill and read the TTHeader.
func (t *talk) options() []client.Option {
	protocol, ok := transports[t.transport]
	if !ok {
		panic(failure("no transport is called " + t.transport))
	}
	options := []client.Option{
		client.WithHostPorts(t.address),
		// Framed is the default since v0.13 and TTHeader adds to it; PurePayload is what takes it away.
		client.WithTransportProtocol(transport.PurePayload),
		client.WithTransportProtocol(protocol),
		client.WithClientBasicInfo(&rpcinfo.EndpointBasicInfo{ServiceName: t.caller}),
		client.WithRPCTimeout(t.timeout),
		client.WithConnectTimeout(5 * time.Second),
	}
	if t.transport == "ttheader-shared" {
		options = append(options, client.WithMuxConnection(2))
	} else {
		options = append(options, client.WithLongConnection(connpool.IdleConfig{
			MinIdlePerAddress: 0, MaxIdlePerAddress: 100, MaxIdleGlobal: 100, MaxIdleTimeout: time.Minute,
		}))
	}
	if t.checksum {
		options = append(options, client.WithCodec(codec.NewDefaultCodecWithConfig(codec.CodecConfig{CRC32Check: true})))
	}
	if !t.bare {
		options = append(options, client.WithMetaHandler(transmeta.ClientTTHeaderHandler))
	}
	return options
}

// check runs the one of that name; the exit code.
func (t *talk) check(name string) (code int) {
	defer func() {
		if reason, ok := recover().(failure); ok {
			fmt.Fprintf(os.Stderr, "%s over %s: %s\n", name, t.transport, reason)
			code = 1
		}
	}()
	for _, each := range checks {
		if each.name == name {
			made, err := conversation.NewClient(t.callee, t.options()...)
			t.fine(err)
			t.client = made
			each.run(t)
			return 0
		}
	}
	fmt.Fprintln(os.Stderr, "no check is called", name)
	return 2
}

// hasHeader says whether the transport carries metadata.
func (t *talk) hasHeader() bool {
	return transports[t.transport]&transport.TTHeader != 0
}

func (t *talk) fine(err error) {
	if err != nil {
		panic(failure(fmt.Sprintf("unexpected error: %v", err)))
	}
}

func (t *talk) equal(what string, got, want any) {
	if !reflect.DeepEqual(got, want) {
		panic(failure(fmt.Sprintf("%s: got %.300v, want %.300v", what, got, want)))
	}
}

func (t *talk) holds(condition bool, format string, values ...any) {
	if !condition {
		panic(failure(fmt.Sprintf(format, values...)))
	}
}
