// Command talk is the Kitex side of weego's tests of Kitex Protobuf: a server and a client of talk.proto.
//
//	talk serve [-shared]                                     prints "listening on PORT" and serves until SIGTERM
//	talk call -address HOST:PORT -transport framed CHECK     one check; exit code 1 and the reason if it fails
//
// tests/support/kitex_protobuf.py builds it, together with the code that Kitex generates for the IDL.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"os/signal"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/connpool"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/remote"
	"github.com/cloudwego/kitex/pkg/remote/trans/netpollmux"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/server"
	"github.com/cloudwego/kitex/transport"

	"weego/interop/kitexprotobuf/kitex_gen/talk"
	service "weego/interop/kitexprotobuf/kitex_gen/talk/talk"
)

const (
	calls    = 2000
	inFlight = 64
)

// ---- the server

type handler struct{}

func (handler) Echo(_ context.Context, request *talk.Request) (*talk.Response, error) {
	return &talk.Response{Back: request}, nil
}

func (handler) Fail(_ context.Context, request *talk.Request) (*talk.Response, error) {
	return nil, errors.New(request.Message)
}

func (handler) Refuse(_ context.Context, request *talk.Request) (*talk.Response, error) {
	return nil, kerrors.NewBizStatusErrorWithExtra(404, request.Message, map[string]string{"what": "ключ"})
}

func (handler) Facts(ctx context.Context, _ *talk.Request) (*talk.Response, error) {
	facts := map[string]string{}
	if value, ok := metainfo.GetPersistentValue(ctx, "KEPT"); ok {
		facts["kept"] = value
	}
	if value, ok := metainfo.GetValue(ctx, "ONCE"); ok {
		facts["once"] = value
	}
	if from := rpcinfo.GetRPCInfo(ctx).From(); from != nil {
		facts["caller"] = from.ServiceName()
	}
	metainfo.SendBackwardValue(ctx, "back", "ward")
	return &talk.Response{Facts: facts}, nil
}

func (handler) Missing(context.Context, *talk.Request) (*talk.Response, error) {
	return nil, remote.NewTransErrorWithMsg(remote.UnknownMethod, "unknown method Missing")
}

func serve(shared bool) {
	address, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	options := []server.Option{
		server.WithListener(address),
		server.WithMetaHandler(transmeta.ServerTTHeaderHandler),
		server.WithExitWaitTime(0),
	}
	if shared {
		options = append(options, server.WithTransHandlerFactory(netpollmux.NewSvrTransHandlerFactory()))
	}
	running := service.NewServer(new(handler), options...)
	fmt.Printf("listening on %d\n", address.Addr().(*net.TCPAddr).Port)
	go func() {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		<-signals
		_ = running.Stop()
	}()
	must(running.Run())
}

// ---- the client

type failure string

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

func full() *talk.Request {
	maybe := uint64(math.MaxUint64)
	return &talk.Request{
		Message: "日本語 🜁 \x00 end", Counts: map[string]int64{"": math.MinInt64, "one": 1}, Numbers: []int32{0, -1, math.MinInt32, math.MaxInt32},
		Raw: []byte{0, 0xff}, Kind: talk.Kind(7), Inner: &talk.Request{Kind: talk.Kind_FANCY, Choice: &talk.Request_Real{Real: -0.5}},
		Choice: &talk.Request_Text{Text: "chosen"}, Maybe: &maybe, More: []*talk.Request{{}, {Message: strings.Repeat("x", 300)}},
	}
}

var checks = map[string]func(service.Client){
	"echo": func(c service.Client) {
		got, err := c.Echo(context.Background(), full())
		must(err)
		holds(reflect.DeepEqual(got.Back, full()), "came back as %v", got.Back)
	},
	"empty": func(c service.Client) {
		got, err := c.Echo(context.Background(), &talk.Request{})
		must(err)
		holds(got.Back != nil && got.Back.Message == "", "came back as %v", got)
	},
	"large": func(c service.Client) {
		text := strings.Repeat("weego ü ", 1<<17)
		got, err := c.Echo(context.Background(), &talk.Request{Message: text})
		must(err)
		holds(got.Back.Message == text, "a text of %d bytes came back with %d", len(text), len(got.Back.Message))
	},
	"error": func(c service.Client) {
		for range 3 {
			_, err := c.Fail(context.Background(), &talk.Request{Message: "it failed"})
			var trans *remote.TransError
			holds(errors.As(err, &trans), "no exception: %v", err)
			holds(trans.TypeID() == remote.InternalError && strings.Contains(trans.Error(), "it failed"), "exception %d: %v", trans.TypeID(), trans)
		}
	},
	"business": func(c service.Client) {
		_, err := c.Refuse(context.Background(), &talk.Request{Message: "not found"})
		status, ok := kerrors.FromBizStatusError(err)
		holds(ok, "no business status: %v", err)
		holds(status.BizStatusCode() == 404 && status.BizMessage() == "not found" && status.BizExtra()["what"] == "ключ", "status %v", status)
	},
	"unknown-method": func(c service.Client) {
		_, err := c.Missing(context.Background(), &talk.Request{})
		var trans *remote.TransError
		holds(errors.As(err, &trans) && trans.TypeID() == remote.UnknownMethod, "no unknown method: %v", err)
		_, err = c.Echo(context.Background(), &talk.Request{})
		must(err)
	},
	"metainfo": func(c service.Client) {
		ctx := metainfo.WithPersistentValue(context.Background(), "KEPT", "for ever")
		ctx = metainfo.WithValue(ctx, "ONCE", "for one hop")
		got, err := c.Facts(ctx, &talk.Request{})
		must(err)
		holds(got.Facts["kept"] == "for ever" && got.Facts["once"] == "for one hop", "facts %v", got.Facts)
		holds(got.Facts["caller"] == "kitex-client", "facts %v", got.Facts)
	},
	"many": func(c service.Client) {
		var waiting sync.WaitGroup
		failed := make(chan error, calls)
		slots := make(chan struct{}, inFlight)
		for n := range calls {
			waiting.Add(1)
			slots <- struct{}{}
			go func() {
				defer waiting.Done()
				text := strconv.Itoa(n)
				got, err := c.Echo(context.Background(), &talk.Request{Message: text})
				if err == nil && got.Back.Message != text {
					err = fmt.Errorf("%s came back as %s", text, got.Back.Message)
				}
				if err != nil {
					failed <- err
				}
				<-slots
			}()
		}
		waiting.Wait()
		close(failed)
		for err := range failed {
			must(err)
		}
	},
}

func call(address, name, check string) (code int) {
	defer func() {
		if reason, ok := recover().(failure); ok {
			fmt.Fprintf(os.Stderr, "%s over %s: %s\n", check, name, reason)
			code = 1
		}
	}()
	options := []client.Option{
		client.WithHostPorts(address),
		client.WithClientBasicInfo(&rpcinfo.EndpointBasicInfo{ServiceName: "kitex-client"}),
		client.WithRPCTimeout(20 * time.Second),
		client.WithConnectTimeout(5 * time.Second),
		client.WithMetaHandler(transmeta.ClientTTHeaderHandler),
	}
	switch name {
	case "framed":
		options = append(options, client.WithTransportProtocol(transport.Framed))
	case "ttheader-framed":
		options = append(options, client.WithTransportProtocol(transport.TTHeaderFramed))
	case "ttheader-framed-shared":
		options = append(options, client.WithTransportProtocol(transport.TTHeaderFramed), client.WithMuxConnection(2))
	default:
		panic(failure("no transport is called " + name))
	}
	if !strings.HasSuffix(name, "-shared") {
		options = append(options, client.WithLongConnection(connpool.IdleConfig{
			MaxIdlePerAddress: 100, MaxIdleGlobal: 100, MaxIdleTimeout: time.Minute,
		}))
	}
	made, err := service.NewClient("talk", options...)
	must(err)
	run, ok := checks[check]
	holds(ok, "no check is called %s", check)
	run(made)
	return 0
}

func main() {
	klog.SetLevel(klog.LevelFatal) // the handlers that fail do so on purpose
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: talk serve | call -address HOST:PORT -transport NAME CHECK")
		os.Exit(2)
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	shared := flags.Bool("shared", false, "take connections that carry many calls at a time")
	address := flags.String("address", "", "HOST:PORT of the server")
	name := flags.String("transport", "ttheader-framed", "framed, ttheader-framed or ttheader-framed-shared")
	_ = flags.Parse(os.Args[2:])
	if os.Args[1] == "serve" {
		serve(*shared)
		return
	}
	os.Exit(call(*address, *name, flags.Arg(0)))
}
