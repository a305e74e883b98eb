// Command talk is the Kitex side of weego's tests of TTHeaderStreaming: a server and a client of talk.thrift.
//
//	talk serve                                               prints "listening on PORT" and serves until SIGTERM
//	talk call -address HOST:PORT CHECK                       one check; exit code 1 and the reason if it fails
//	talk list                                                the names of the checks
//	talk load -address HOST:PORT -calls N                    the client of bench/thrift_streams.py
//
// tests/support/kitex_stream.py builds it, together with the code that Kitex generates for the IDL.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/streaming"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/server"

	"weego/interop/kitexstream/kitex_gen/talk"
	service "weego/interop/kitexstream/kitex_gen/talk/talk"
)

type handler struct {
	mu   sync.Mutex
	ends []string
}

func (h *handler) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ends = append(h.ends, err.Error())
}

func (h *handler) Say(_ context.Context, req *talk.Request) (*talk.Reply, error) {
	if req.Action == "ends" {
		h.mu.Lock()
		defer h.mu.Unlock()
		return &talk.Reply{Message: strings.Join(h.ends, "\n"), Count: int32(len(h.ends))}, nil
	}
	return &talk.Reply{Message: req.Message, Body: req.Body}, nil
}

// act does what the request wants done before it is answered; what it returns ends the stream.
func act(req *talk.Request, stream streaming.ServerStream) error {
	switch req.Action {
	case "fail":
		return errors.New(req.Message)
	case "refuse":
		return kerrors.NewBizStatusErrorWithExtra(4711, req.Message, map[string]string{"shelf": "7"})
	case "declared":
		return &talk.Refused{Why: req.Message, Code: 7}
	case "metadata":
		if err := stream.SetHeader(streaming.Header{"head": "ключ"}); err != nil {
			return err
		}
		return stream.SetTrailer(streaming.Trailer{"tail": "t"})
	}
	return nil
}

func facts(ctx context.Context) map[string]string {
	found := map[string]string{"caller": rpcinfo.GetRPCInfo(ctx).From().ServiceName()}
	for name, value := range metainfo.GetAllValues(ctx) {
		found["transient "+name] = value
	}
	for name, value := range metainfo.GetAllPersistentValues(ctx) {
		found["persistent "+name] = value
	}
	return found
}

func (h *handler) Watch(ctx context.Context, req *talk.Request, stream talk.Talk_watchServer) error {
	for i := range req.Count {
		if err := stream.Send(ctx, &talk.Reply{Message: req.Message, Body: req.Body, Count: i}); err != nil {
			return err
		}
	}
	if req.Action == "linger" {
		<-ctx.Done()
		h.note(ctx.Err())
		return ctx.Err()
	}
	return act(req, stream)
}

func (h *handler) Collect(ctx context.Context, stream talk.Talk_collectServer) error {
	count, size, last := 0, 0, ""
	for {
		req, err := stream.Recv(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			h.note(err)
			return err
		}
		if err := act(req, stream); err != nil {
			return err
		}
		count++
		size += len(req.Body)
		last = req.Message
	}
	return stream.SendAndClose(ctx, &talk.Reply{Message: fmt.Sprintf("%d %s", size, last), Count: int32(count)})
}

func (h *handler) Chat(ctx context.Context, stream talk.Talk_chatServer) error {
	for {
		req, err := stream.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			h.note(err)
			return err
		}
		if err := act(req, stream); err != nil {
			return err
		}
		reply := &talk.Reply{Message: req.Message, Body: req.Body, Count: req.Count}
		if req.Action == "facts" {
			reply.Facts = facts(ctx)
		}
		if err := stream.Send(ctx, reply); err != nil {
			return err
		}
	}
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	running := service.NewServer(new(handler),
		server.WithListener(listener),
		server.WithServerBasicInfo(&rpcinfo.EndpointBasicInfo{ServiceName: "talk"}),
		server.WithMetaHandler(transmeta.ServerTTHeaderHandler),
		server.WithExitWaitTime(0),
	)
	fmt.Printf("listening on %d\n", listener.Addr().(*net.TCPAddr).Port)
	go func() {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		<-signals
		_ = running.Stop()
	}()
	must(running.Run())
}

func main() {
	klog.SetLevel(klog.LevelFatal) // the handlers that fail do so on purpose
	if len(os.Args) < 2 {
		usage()
	}
	switch os.Args[1] {
	case "serve":
		serve()
	case "list":
		for _, each := range checks {
			fmt.Println(each.name)
		}
	case "call":
		flags := flag.NewFlagSet("call", flag.ExitOnError)
		address := flags.String("address", "", "HOST:PORT of the server")
		relay := flags.String("relay", "", "tcp://HOST:PORT of a server behind it")
		_ = flags.Parse(os.Args[2:])
		if flags.NArg() != 1 {
			usage()
		}
		os.Exit(check(*address, *relay, flags.Arg(0)))
	case "load":
		flags := flag.NewFlagSet("load", flag.ExitOnError)
		address := flags.String("address", "", "HOST:PORT of the server")
		calls := flags.Int("calls", 10, "calls of each shape")
		size := flags.Int("size", 1024, "bytes of a message")
		_ = flags.Parse(os.Args[2:])
		load(*address, *calls, *size)
	default:
		usage()
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: talk serve | list | call -address HOST:PORT [-relay ADDRESS] CHECK")
	os.Exit(2)
}

func must(err error) {
	if err != nil {
		panic(failure("unexpected error: " + err.Error()))
	}
}

func holds(ok bool, format string, arguments ...any) {
	if !ok {
		panic(failure(fmt.Sprintf(format, arguments...)))
	}
}

// eventually waits for what another process does.
func eventually(what string, condition func() bool) {
	for range 1000 {
		if condition() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	panic(failure(what + " did not come about"))
}
