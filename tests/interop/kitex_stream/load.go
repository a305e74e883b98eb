package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"weego/interop/kitexstream/kitex_gen/talk"
	service "weego/interop/kitexstream/kitex_gen/talk/talk"
)

// What bench/thrift_streams.py has for weego's client, too: messages of one call, and calls at a time of the last shape.
const (
	perCall = 2000
	atOnce  = 32
)

// load measures the shapes one after the other: it warms up, says so, waits for a line, and prints JSON.
func load(address string, calls int, size int) {
	c, err := service.NewClient("talk", options(address, 1)...)
	must(err)
	body := make([]byte, size)
	shapes := []func(){
		func() { // the server streams
			stream, err := c.Watch(background(), &talk.Request{Count: perCall, Body: body})
			must(err)
			must(ended(stream))
		},
		func() { // the client streams
			stream, err := c.Collect(background())
			must(err)
			for range perCall {
				must(stream.Send(background(), &talk.Request{Body: body}))
			}
			_, err = stream.CloseAndRecv(background())
			must(err)
		},
		func() { // both do
			stream, err := c.Chat(background())
			must(err)
			go func() {
				for range perCall {
					_ = stream.Send(background(), &talk.Request{Body: body})
				}
				_ = stream.CloseSend(background())
			}()
			must(ended(stream))
		},
		func() { // back and forth, many streams at once
			var group sync.WaitGroup
			for range atOnce {
				group.Add(1)
				go func() {
					defer group.Done()
					ctx, stop := context.WithCancel(context.Background())
					defer stop()
					stream, err := c.Chat(ctx)
					must(err)
					for range perCall / atOnce {
						must(stream.Send(ctx, &talk.Request{Body: body}))
						_, err := stream.Recv(ctx)
						must(err)
					}
					must(stream.CloseSend(ctx))
					if _, err := stream.Recv(ctx); !errors.Is(err, io.EOF) {
						must(err)
					}
				}()
			}
			group.Wait()
		},
	}
	input := bufio.NewReader(os.Stdin)
	for _, shape := range shapes {
		shape()
		fmt.Println("warm")
		_, _ = input.ReadString('\n')
		began, spent := time.Now(), cpu()
		for range calls {
			shape()
		}
		spent, took := cpu()-spent, time.Since(began).Seconds()
		count := float64(calls * perCall)
		_ = json.NewEncoder(os.Stdout).Encode(map[string]float64{"messages": count, "rate": count / took, "us": spent / count * 1e6})
	}
}

// cpu is what this process has used, in seconds.
func cpu() float64 {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}
