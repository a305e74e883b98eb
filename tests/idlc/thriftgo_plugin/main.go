// A plugin for thriftgo, on thriftgo's own library: it writes what it was given as JSON, and fails, warns or inserts when its parameters say so.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cloudwego/thriftgo/plugin"
)

func main() {
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	request, err := plugin.UnmarshalRequest(input)
	if err != nil {
		fmt.Fprintln(os.Stderr, "unmarshal:", err)
		os.Exit(1)
	}
	name := filepath.Join(request.OutputPath, "request.json")
	text, err := json.MarshalIndent(request, "", " ")
	if err != nil {
		panic(err)
	}
	response := &plugin.Response{Contents: []*plugin.Generated{{Content: string(text), Name: &name}}}
	for _, parameter := range request.PluginParameters {
		key, value, _ := strings.Cut(parameter, "=")
		switch key {
		case "warn":
			response.Warnings = append(response.Warnings, value)
		case "fail":
			response = plugin.BuildErrorResponse(value)
		case "insert": // file@point@text
			parts := strings.Split(value, "@")
			file := filepath.Join(request.OutputPath, parts[0])
			response.Contents = append(response.Contents, &plugin.Generated{Content: parts[2], Name: &file, InsertionPoint: &parts[1]})
		}
	}
	output, err := plugin.MarshalResponse(response)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(output)
}
