// Command bench is Kitex's side of weego's benchmark: a server and a client of bench.thrift, on one processor.
//
//	bench serve [-port N] [-shared]                              prints {"port": …, "pid": …} and serves until it is ended
//	bench load -address HOST:PORT -transport NAME [-callers N] … calls echo for a while and prints what that cost
//
// bench/go.py builds it, together with the code that Kitex generates for the IDL.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/connpool"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/server"
	"github.com/cloudwego/kitex/transport"

	"weego/bench/kitex/kitex_gen/bench"
	service "weego/bench/kitex/kitex_gen/bench/bench"
)

type handler struct{}

func (*handler) Echo(_ context.Context, req *bench.EchoRequest) (*bench.EchoResponse, error) {
	return &bench.EchoResponse{Action: req.Action, Msg: req.Msg}, nil
}

func (*handler) EchoComplex(_ context.Context, req *bench.ComplexRequest) (*bench.ComplexResponse, error) {
	return &bench.ComplexResponse{
		Action: req.Action, Msg: req.Msg, ItemMap: req.ItemMap, ItemList: req.ItemList, GroupSet: req.GroupSet, Flag: req.Flag,
	}, nil
}

func serve(arguments []string) {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	port := flags.Int("port", 0, "on 127.0.0.1; 0: any")
	shared := flags.Bool("shared", false, "take connections that carry many calls at a time")
	_ = flags.Parse(arguments)
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	options := []server.Option{
		server.WithListener(listener),
		server.WithServerBasicInfo(&rpcinfo.EndpointBasicInfo{ServiceName: "bench"}),
		server.WithMetaHandler(transmeta.ServerTTHeaderHandler),
	}
	if *shared {
		options = append(options, server.WithMuxTransport())
	}
	s := service.NewServer(&handler{}, options...)
	server.RegisterStartHook(func() {
		fmt.Printf("{\"port\": %d, \"pid\": %d}\n", listener.Addr().(*net.TCPAddr).Port, os.Getpid())
	})
	if err := s.Run(); err != nil {
		log.Fatal(err)
	}
}

// cpu is what this process has used so far, user and kernel.
func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func load(arguments []string) {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	address := flags.String("address", "", "HOST:PORT of the server")
	name := flags.String("transport", "framed", "framed, ttheader or ttheader-shared")
	callers := flags.Int("callers", 1, "goroutines that call, each one call after the other")
	seconds := flags.Float64("seconds", 2, "length of the window")
	warmup := flags.Float64("warmup", 0.3, "seconds before it")
	size := flags.Int("size", 1024, "characters of the message")
	_ = flags.Parse(arguments)
	options := []client.Option{
		client.WithHostPorts(*address),
		client.WithTransportProtocol(transport.PurePayload),
		client.WithClientBasicInfo(&rpcinfo.EndpointBasicInfo{ServiceName: "bench-client"}),
		client.WithMetaHandler(transmeta.ClientTTHeaderHandler),
		client.WithConnectTimeout(5 * time.Second),
		client.WithRPCTimeout(10 * time.Second),
	}
	if *name == "framed" {
		options = append(options, client.WithTransportProtocol(transport.Framed))
	} else {
		options = append(options, client.WithTransportProtocol(transport.TTHeader))
	}
	if *name == "ttheader-shared" {
		options = append(options, client.WithMuxConnection(1))
	} else {
		options = append(options, client.WithLongConnection(connpool.IdleConfig{
			MaxIdlePerAddress: *callers, MaxIdleGlobal: *callers, MaxIdleTimeout: time.Minute,
		}))
	}
	c, err := service.NewClient("bench", options...)
	if err != nil {
		log.Fatal(err)
	}
	text := strings.Repeat("abcdefghijklmnopqrstuvwxyz0123456789", *size/36+1)[:*size]
	var calls atomic.Int64
	var stop atomic.Bool
	var all sync.WaitGroup
	for range *callers {
		all.Add(1)
		go func() {
			defer all.Done()
			for !stop.Load() {
				got, err := c.Echo(context.Background(), &bench.EchoRequest{Action: "echo", Msg: text})
				if err != nil {
					log.Fatal(err)
				}
				if got.Msg != text {
					log.Fatal("the answer is another one")
				}
				calls.Add(1)
			}
		}()
	}
	time.Sleep(time.Duration(*warmup * float64(time.Second)))
	calls0, cpu0, began := calls.Load(), cpu(), time.Now()
	time.Sleep(time.Duration(*seconds * float64(time.Second)))
	said := map[string]any{"calls": calls.Load() - calls0, "cpu_ns": (cpu() - cpu0).Nanoseconds(), "seconds": time.Since(began).Seconds()}
	stop.Store(true)
	all.Wait()
	_ = json.NewEncoder(os.Stdout).Encode(said)
}

func main() {
	klog.SetLevel(klog.LevelFatal)
	if len(os.Args) < 2 {
		log.Fatal("usage: bench serve | load …")
	}
	switch os.Args[1] {
	case "serve":
		serve(os.Args[2:])
	case "load":
		load(os.Args[2:])
	default:
		log.Fatal("usage: bench serve | load …")
	}
}
