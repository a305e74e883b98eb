// Kitex's registry and resolver on etcd (github.com/kitex-contrib/registry-etcd), as a program:
//
//	kitex_etcd register ENDPOINT SERVICE ADDRESS WEIGHT TAG=VALUE…   prints "registered", withdraws at the end of its input
//	kitex_etcd resolve  ENDPOINT SERVICE                            prints a JSON list of the instances
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/cloudwego/kitex/pkg/registry"
	etcd "github.com/kitex-contrib/registry-etcd"
)

type instance struct {
	Network string
	Address string
	Weight  int
	Lane    string
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if args[0] == "register" {
		return register(args[1], args[2], args[3], args[4], args[5:])
	}
	return resolve(args[1], args[2])
}

func register(endpoint, service, address, weight string, tags []string) error {
	made, err := etcd.NewEtcdRegistry([]string{endpoint})
	if err != nil {
		return err
	}
	addr, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(weight)
	if err != nil {
		return err
	}
	info := &registry.Info{ServiceName: service, Addr: addr, Weight: number, Tags: map[string]string{}}
	for _, tag := range tags {
		name, value, _ := strings.Cut(tag, "=")
		info.Tags[name] = value
	}
	if err := made.Register(info); err != nil {
		return err
	}
	fmt.Println("registered")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return made.Deregister(info)
}

func resolve(endpoint, service string) error {
	made, err := etcd.NewEtcdResolver([]string{endpoint})
	if err != nil {
		return err
	}
	result, err := made.Resolve(context.Background(), service)
	if err != nil {
		return err
	}
	found := []instance{}
	for _, each := range result.Instances {
		lane, _ := each.Tag("lane")
		found = append(found, instance{each.Address().Network(), each.Address().String(), each.Weight(), lane})
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}
