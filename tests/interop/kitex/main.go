// Command conversation is the Kitex side of weego's interoperability tests: a server and a client of conversation.thrift.
//
//	conversation serve [-shared] [-checksum]               prints "listening on PORT" and serves until SIGTERM
//	conversation call -address HOST:PORT -transport framed CHECK
//	                                                       one check; exit code 1 and the reason if it fails
//	conversation list                                      the names of the checks
//
// tests/support/kitex.py builds it, together with the code that Kitex generates for the IDL.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
)

func main() {
	klog.SetLevel(klog.LevelFatal) // the handlers that fail do so on purpose
	if len(os.Args) < 2 {
		usage()
	}
	switch os.Args[1] {
	case "serve":
		flags := flag.NewFlagSet("serve", flag.ExitOnError)
		shared := flags.Bool("shared", false, "take connections that carry many calls at a time")
		checksum := flags.Bool("checksum", false, "check and send payload checksums on TTHeader")
		_ = flags.Parse(os.Args[2:])
		serve(*shared, *checksum)
	case "list":
		for _, each := range checks {
			fmt.Println(each.name)
		}
	case "call":
		flags := flag.NewFlagSet("call", flag.ExitOnError)
		t := talk{}
		flags.StringVar(&t.address, "address", "", "HOST:PORT of the server")
		flags.StringVar(&t.transport, "transport", "framed", "buffered, framed, ttheader, ttheader-framed or ttheader-shared")
		flags.StringVar(&t.caller, "caller", "kitex-client", "the name of this client")
		flags.StringVar(&t.callee, "callee", "conversation", "the name of the server")
		flags.DurationVar(&t.timeout, "timeout", 20*time.Second, "of a call")
		flags.BoolVar(&t.bare, "bare", false, "leave out the handler that fills the TTHeader")
		flags.BoolVar(&t.checksum, "checksum", false, "send and check payload checksums on TTHeader")
		_ = flags.Parse(os.Args[2:])
		if flags.NArg() != 1 {
			usage()
		}
		os.Exit(t.check(flags.Arg(0)))
	default:
		usage()
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: conversation serve | list | call [-address HOST:PORT] [-transport NAME] CHECK")
	os.Exit(2)
}
