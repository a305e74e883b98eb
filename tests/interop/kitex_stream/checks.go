package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/remote/trans/ttstream"
	"github.com/cloudwego/kitex/pkg/rpcinfo"

	"weego/interop/kitexstream/kitex_gen/talk"
	"weego/interop/kitexstream/kitex_gen/talk/elsewhere"
	service "weego/interop/kitexstream/kitex_gen/talk/talk"
)

const (
	messages = 1000
	streams  = 64
	megabyte = 1 << 20
)

// failure is what a check panics with.
type failure string

// peer is one check's view of the server.
type peer struct {
	service.Client
	address, relay string
}

// checks by name; tests/interop/test_kitex_stream.py runs each.
var checks = []struct {
	name string
	run  func(*peer)
}{
	{"say", say},
	{"watch", watch},
	{"collect", collect},
	{"chat", chat},
	{"empty", empty},
	{"large", large},
	{"many", many},
	{"crossing", crossing},
	{"metadata", metadata},
	{"metainfo", metaInfo},
	{"failure", failing},
	{"business", business},
	{"declared", declared},
	{"unknown-method", unknownMethod},
	{"unreadable", unreadable},
	{"cancel", cancel},
	{"cascade", cascade},
	{"timeout", timeout},
	{"abandoned", abandoned},
	{"steady", steady},
}

func options(address string, connections int) []client.Option {
	return []client.Option{
		client.WithHostPorts(address),
		client.WithClientBasicInfo(&rpcinfo.EndpointBasicInfo{ServiceName: "kitex-client"}),
		client.WithRPCTimeout(20 * time.Second),
		client.WithConnectTimeout(5 * time.Second),
		client.WithTTHeaderStreamingOptions(client.WithTTHeaderStreamingTransportOptions(
			ttstream.WithClientMuxConnPool(ttstream.MuxConnConfig{PoolSize: connections, MaxIdleTimeout: time.Minute}),
		)),
	}
}

// check runs the one of that name; the exit code.
func check(address, relay, name string) (code int) {
	defer func() {
		if reason, ok := recover().(failure); ok {
			fmt.Fprintf(os.Stderr, "%s: %s\n", name, reason)
			code = 1
		}
	}()
	for _, each := range checks {
		if each.name == name {
			made, err := service.NewClient("talk", options(address, 1)...)
			must(err)
			each.run(&peer{made, address, relay})
			return 0
		}
	}
	fmt.Fprintln(os.Stderr, "no check is called", name)
	return 2
}

func background() context.Context {
	ctx, _ := context.WithTimeout(context.Background(), 30*time.Second) //nolint:govet // the process ends with the check
	return ctx
}

// ended is how a stream ended: nil for well.
func ended(stream interface {
	Recv(context.Context) (*talk.Reply, error)
}) error {
	for {
		if _, err := stream.Recv(background()); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func say(p *peer) {
	got, err := p.Say(background(), &talk.Request{Message: "é", Body: []byte{0, 255}})
	must(err)
	holds(got.Message == "é" && bytes.Equal(got.Body, []byte{0, 255}), "came back as %v", got)
}

func watch(p *peer) {
	stream, err := p.Watch(background(), &talk.Request{Message: "日本語", Count: messages})
	must(err)
	for i := range int32(messages) {
		reply, err := stream.Recv(background())
		must(err)
		holds(reply.Count == i && reply.Message == "日本語", "reply %d is %v", i, reply)
	}
	_, err = stream.Recv(background())
	holds(errors.Is(err, io.EOF), "ended with %v", err)
}

func collect(p *peer) {
	stream, err := p.Collect(background())
	must(err)
	for range messages {
		must(stream.Send(background(), &talk.Request{Message: "x", Body: make([]byte, 100)}))
	}
	reply, err := stream.CloseAndRecv(background())
	must(err)
	holds(reply.Count == messages && reply.Message == fmt.Sprintf("%d x", messages*100), "reply is %v", reply)
}

func converse(p *peer, first, count int32, body []byte) {
	stream, err := p.Chat(background())
	must(err)
	for i := range count {
		must(stream.Send(background(), &talk.Request{Count: first + i, Body: body}))
		reply, err := stream.Recv(background())
		must(err)
		holds(reply.Count == first+i && bytes.Equal(reply.Body, body), "reply %d of %d is %d", i, first, reply.Count)
	}
	must(stream.CloseSend(background()))
	must(ended(stream))
}

func chat(p *peer) {
	converse(p, 0, messages, []byte("body"))
	// And without waiting for each answer.
	stream, err := p.Chat(background())
	must(err)
	go func() {
		for i := range int32(messages) {
			_ = stream.Send(background(), &talk.Request{Count: i})
		}
		_ = stream.CloseSend(background())
	}()
	for i := range int32(messages) {
		reply, err := stream.Recv(background())
		must(err)
		holds(reply.Count == i, "reply %d is %d", i, reply.Count)
	}
	must(ended(stream))
}

func empty(p *peer) {
	one, err := p.Collect(background())
	must(err)
	reply, err := one.CloseAndRecv(background())
	must(err)
	holds(reply.Count == 0, "reply is %v", reply)
	two, err := p.Chat(background())
	must(err)
	must(two.CloseSend(background()))
	must(ended(two))
	three, err := p.Watch(background(), &talk.Request{})
	must(err)
	must(ended(three))
}

func large(p *peer) {
	converse(p, 0, 5, bytes.Repeat([]byte("weego "), megabyte/2))
}

func many(p *peer) {
	var group sync.WaitGroup
	var failed atomic.Pointer[failure]
	for i := range int32(streams) {
		group.Add(1)
		go func() {
			defer group.Done()
			defer func() {
				if reason, ok := recover().(failure); ok {
					failed.Store(&reason)
				}
			}()
			converse(p, i*1000, 50, []byte{byte(i)})
		}()
	}
	group.Wait()
	if reason := failed.Load(); reason != nil {
		panic(*reason)
	}
}

// crossing has all streams of one connection open at once before any of them goes on.
func crossing(p *peer) {
	var open []service.Talk_chatClient
	for range streams {
		stream, err := p.Chat(background())
		must(err)
		open = append(open, stream)
	}
	for round := range int32(10) {
		for i, stream := range open {
			must(stream.Send(background(), &talk.Request{Count: int32(i)*100 + round}))
		}
		for i, stream := range open {
			reply, err := stream.Recv(background())
			must(err)
			holds(reply.Count == int32(i)*100+round, "stream %d got %d", i, reply.Count)
		}
	}
	for _, stream := range open {
		must(stream.CloseSend(background()))
		must(ended(stream))
	}
}

func metadata(p *peer) {
	stream, err := p.Chat(background())
	must(err)
	must(stream.Send(background(), &talk.Request{Action: "metadata"}))
	head, err := stream.Header()
	must(err)
	holds(head["head"] == "ключ", "header is %v", head)
	must(stream.CloseSend(background()))
	must(ended(stream))
	tail, err := stream.Trailer()
	must(err)
	holds(tail["tail"] == "t", "trailer is %v", tail)
}

func metaInfo(p *peer) {
	ctx := metainfo.WithPersistentValue(metainfo.WithValue(background(), "near", "n"), "far", "f")
	stream, err := p.Chat(ctx)
	must(err)
	must(stream.Send(ctx, &talk.Request{Action: "facts"}))
	reply, err := stream.Recv(ctx)
	must(err)
	holds(reply.Facts["transient near"] == "n" && reply.Facts["persistent far"] == "f", "facts are %v", reply.Facts)
	must(stream.CloseSend(ctx))
	must(ended(stream))
}

// refused is the error that a request with this action ends in, over all kinds of streams.
func refused(p *peer, action, message string) []error {
	request := &talk.Request{Action: action, Message: message, Count: 1}
	one, err := p.Watch(background(), request)
	must(err)
	two, err := p.Collect(background())
	must(err)
	must(two.Send(background(), request))
	_, second := two.CloseAndRecv(background())
	three, err := p.Chat(background())
	must(err)
	must(three.Send(background(), request))
	return []error{ended(one), second, ended(three)}
}

// said is the text of the application exception that a stream ended in. Kitex's error knows its type, and does not tell.
func said(err error) string {
	holds(err != nil && strings.Contains(err.Error(), "code=12001"), "no exception: %v", err)
	return err.Error()
}

func failing(p *peer) {
	for _, err := range refused(p, "fail", "it failed") {
		holds(strings.Contains(said(err), "it failed"), "ended with %v", err)
	}
}

func business(p *peer) {
	for _, err := range refused(p, "refuse", "sold out") {
		status, ok := kerrors.FromBizStatusError(err)
		holds(ok, "no business status: %v", err)
		holds(status.BizStatusCode() == 4711 && status.BizMessage() == "sold out" && status.BizExtra()["shelf"] == "7", "status is %v", status)
	}
}

func declared(p *peer) {
	for _, err := range refused(p, "declared", "no") {
		holds(strings.Contains(said(err), "biz error"), "ended with %v", err)
	}
}

func unknownMethod(p *peer) {
	made, err := elsewhere.NewClient("talk", options(p.address, 1)...)
	must(err)
	stream, err := made.Nowhere(background())
	must(err)
	err = ended(stream)
	holds(strings.Contains(said(err), "unknown service Elsewhere"), "ended with %v", err)
}

// unreadable sends a text that is no UTF-8, which weego does not take and Go does not mind.
func unreadable(p *peer) {
	stream, err := p.Chat(background())
	must(err)
	must(stream.Send(background(), &talk.Request{Message: "\xff"}))
	err = ended(stream)
	holds(strings.Contains(said(err), "message"), "ended with %v", err)
}

// hasEnded waits until the server says that a handler ended in these words.
func hasEnded(p *peer, words string) {
	eventually("the handler's end, "+words, func() bool {
		got, err := p.Say(background(), &talk.Request{Action: "ends"})
		must(err)
		return strings.Contains(got.Message, words)
	})
}

func cancel(p *peer) {
	ctx, stop := context.WithCancel(background())
	stream, err := p.Chat(ctx)
	must(err)
	must(stream.Send(ctx, &talk.Request{Count: 1}))
	_, err = stream.Recv(ctx)
	must(err)
	stop()
	_, err = stream.Recv(ctx)
	holds(errors.Is(err, kerrors.ErrStreamingCanceled), "ended with %v", err)
	hasEnded(p, "Cancelled 12007 kitex-client")
}

// cascade cancels a stream whose handler has one of its own to another server.
func cascade(p *peer) {
	ctx, stop := context.WithCancel(background())
	stream, err := p.Chat(ctx)
	must(err)
	must(stream.Send(ctx, &talk.Request{Action: "relay", Message: p.relay}))
	_, err = stream.Recv(ctx)
	must(err)
	stop()
	behind, err := service.NewClient("talk", options(strings.TrimPrefix(p.relay, "tcp://"), 1)...)
	must(err)
	hasEnded(&peer{behind, "", ""}, "canceled path: kitex-client -> Talk")
}

func timeout(p *peer) {
	ctx, stop := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer stop()
	stream, err := p.Watch(ctx, &talk.Request{Action: "linger", Count: 1})
	must(err)
	holds(errors.Is(ended(stream), kerrors.ErrStreamingTimeout), "ended otherwise")
	hasEnded(p, "Cancelled 12015 kitex-client")
}

// abandoned ends the connection under a stream: this process ends.
func abandoned(p *peer) {
	stream, err := p.Chat(background())
	must(err)
	must(stream.Send(background(), &talk.Request{Count: 1}))
	_, err = stream.Recv(background())
	must(err)
}

// steady talks in short streams and one long one until SIGTERM, and counts.
func steady(p *peer) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	var group sync.WaitGroup
	var count atomic.Int64
	var stopped atomic.Bool
	var failed atomic.Pointer[failure]
	for range 8 {
		group.Add(1)
		go func() {
			defer group.Done()
			defer func() {
				if reason, ok := recover().(failure); ok {
					failed.Store(&reason)
					stopped.Store(true)
				}
			}()
			for !stopped.Load() {
				converse(p, 0, 10, []byte("steady"))
				count.Add(1)
			}
		}()
	}
	fmt.Println("talking")
	go func() {
		<-signals
		stopped.Store(true)
	}()
	group.Wait()
	if reason := failed.Load(); reason != nil {
		panic(*reason)
	}
	fmt.Printf("streams %d\n", count.Load())
}
