package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/remote/codec"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/server"

	"weego/interop/kitex/kitex_gen/conversation"
	service "weego/interop/kitex/kitex_gen/conversation/conversation"
)

// handler is the service; the one in tests/interop/test_kitex.py does the same.
type handler struct {
	heard   atomic.Int32
	expired atomic.Int32
}

func serve(shared, checksum bool) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	options := []server.Option{
		server.WithListener(listener),
		server.WithServerBasicInfo(&rpcinfo.EndpointBasicInfo{ServiceName: "conversation"}),
		server.WithMetaHandler(transmeta.ServerTTHeaderHandler),
		server.WithEnableContextTimeout(true),
		server.WithExitWaitTime(2 * time.Second),
	}
	if shared {
		options = append(options, server.WithMuxTransport())
	}
	if checksum {
		options = append(options, server.WithCodec(codec.NewDefaultCodecWithConfig(codec.CodecConfig{CRC32Check: true})))
	}
	s := service.NewServer(&handler{}, options...)
	server.RegisterStartHook(func() {
		fmt.Printf("listening on %d\n", listener.Addr().(*net.TCPAddr).Port)
	})
	if err := s.Run(); err != nil {
		log.Fatal(err)
	}
}

func (h *handler) Echo(_ context.Context, req *conversation.Request) (*conversation.Response, error) {
	return &conversation.Response{Message: req.Message}, nil
}

func (h *handler) Every(_ context.Context, every *conversation.Every) (*conversation.Every, error) {
	return every, nil
}

func (h *handler) Blob(_ context.Context, data []byte) ([]byte, error) { return data, nil }

func (h *handler) Add(_ context.Context, a, b int64) (int64, error) { return a + b, nil }

func (h *handler) Nothing(context.Context) error { return nil }

func (h *handler) Find(_ context.Context, what string) (*conversation.Point, error) {
	switch what {
	case "nothing":
		return nil, &conversation.NotFound{What: what, Code: 404}
	case "secret":
		return nil, &conversation.Denied{Why: "it is a secret: ключ"}
	}
	return &conversation.Point{X: 1, Y: -2.5, Name: &what}, nil
}

func (h *handler) Check(_ context.Context, what string) error {
	if what == "nothing" {
		return &conversation.NotFound{What: what, Code: -1}
	}
	return nil
}

func (h *handler) Fail(_ context.Context, text string) (string, error) {
	return "", errors.New(text)
}

func (h *handler) Refuse(_ context.Context, status int32, message string, extra map[string]string) (string, error) {
	return "", kerrors.NewBizStatusErrorWithExtra(status, message, extra)
}

func (h *handler) Note(context.Context, string) error {
	h.heard.Add(1)
	return nil
}

func (h *handler) Noted(context.Context) (int32, error) { return h.heard.Load(), nil }

func (h *handler) Facts(ctx context.Context) (map[string]string, error) {
	from := rpcinfo.GetRPCInfo(ctx).From()
	facts := map[string]string{"caller": from.ServiceName(), "from method": from.Method()}
	for name, value := range metainfo.GetAllValues(ctx) {
		facts["transient "+name] = value
	}
	for name, value := range metainfo.GetAllPersistentValues(ctx) {
		facts["persistent "+name] = value
	}
	if deadline, ok := ctx.Deadline(); ok {
		facts["remaining"] = strconv.FormatInt(time.Until(deadline).Milliseconds(), 10)
	}
	return facts, nil
}

func (h *handler) Linger(ctx context.Context, milliseconds int32) (string, error) {
	select {
	case <-time.After(time.Duration(milliseconds) * time.Millisecond):
		return "done", nil
	case <-ctx.Done():
		h.expired.Add(1)
		return "interrupted", nil
	}
}

func (h *handler) Interrupted(context.Context) (int32, error) { return h.expired.Load(), nil }

func (h *handler) Tell(ctx context.Context, pairs map[string]string) error {
	for name, value := range pairs {
		if !metainfo.SendBackwardValue(ctx, name, value) {
			return fmt.Errorf("no place for the backward value %q", name)
		}
	}
	return nil
}
