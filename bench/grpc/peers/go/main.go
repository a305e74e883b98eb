// grpc-go's server and client of /bench.Echo/Echo; GOMAXPROCS is the caller's business.
//
//	grpc-go [CERT KEY]                            serves, with TLS if there are files
//	grpc-go call TARGET CALLS IN-FLIGHT BYTES     calls, and tells the CPU that a call cost
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func echo(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	request := new(wrapperspb.BytesValue)
	if err := decode(request); err != nil {
		return nil, err
	}
	return &wrapperspb.BytesValue{Value: request.Value}, nil
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func serve(files []string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	var options []grpc.ServerOption
	if len(files) == 2 {
		tls, err := credentials.NewServerTLSFromFile(files[0], files[1])
		check(err)
		options = append(options, grpc.Creds(tls))
	}
	server := grpc.NewServer(options...)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.Echo",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Echo", Handler: echo}},
	}, nil)
	fmt.Printf("{\"port\": %d, \"pid\": %d}\n", listener.Addr().(*net.TCPAddr).Port, os.Getpid())
	check(server.Serve(listener))
}

func spent() time.Duration {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func number(text string) int {
	found, err := strconv.Atoi(text)
	check(err)
	return found
}

func call(target string, calls, flight, size int) {
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	request := &wrapperspb.BytesValue{Value: make([]byte, size)}
	once := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		reply := new(wrapperspb.BytesValue)
		check(connection.Invoke(ctx, "/bench.Echo/Echo", request, reply))
		if len(reply.Value) != size {
			panic("a wrong answer")
		}
	}
	for i := 0; i < 200; i++ {
		once()
	}
	var left atomic.Int64
	left.Store(int64(calls))
	var all sync.WaitGroup
	before := spent()
	for i := 0; i < flight; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for left.Add(-1) >= 0 {
				once()
			}
		}()
	}
	all.Wait()
	fmt.Printf("{\"us\": %.2f}\n", float64((spent()-before).Nanoseconds())/1000/float64(calls))
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "call" {
		call(os.Args[2], number(os.Args[3]), number(os.Args[4]), number(os.Args[5]))
		return
	}
	serve(os.Args[1:])
}
