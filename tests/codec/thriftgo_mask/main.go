// What thriftgo's own field masks do: one JSON question a line on stdin, one JSON answer a line on stdout.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"github.com/apache/thrift/lib/go/thrift"
	"github.com/cloudwego/thriftgo/fieldmask"
	"github.com/cloudwego/thriftgo/thrift_reflection"

	current "weego/mask/cur/mask"
	zero "weego/mask/zero/mask"
)

type question struct {
	Paths []string // of a mask for Outer
	Mask  string   // instead of Paths: a mask as JSON
	Black bool
	Zero  bool   // by the code that writes zeros for required fields
	Data  string // an Outer in binary, as hex
}

type answer struct {
	Error   string
	Mask    string
	Written string // Data read without the mask and written with it, as hex
	Read    string // Data read with the mask and written without it
}

type outer interface {
	thrift.TStruct
	Set_FieldMask(*fieldmask.FieldMask)
	GetTypeDescriptor() *thrift_reflection.TypeDescriptor
}

func blank(q question) outer {
	if q.Zero {
		return zero.NewOuter()
	}
	return current.NewOuter()
}

func write(value outer) (string, error) {
	buffer := thrift.NewTMemoryBuffer()
	if err := value.Write(thrift.NewTBinaryProtocolTransport(buffer)); err != nil {
		return "", err
	}
	return hex.EncodeToString(buffer.Bytes()), nil
}

func read(value outer, data []byte) error {
	buffer := thrift.NewTMemoryBuffer()
	buffer.Write(data)
	return value.Read(thrift.NewTBinaryProtocolTransport(buffer))
}

func ask(q question) (a answer, err error) {
	defer func() {
		if caught := recover(); caught != nil {
			err = fmt.Errorf("panic: %v", caught)
		}
	}()
	mask := new(fieldmask.FieldMask)
	if q.Mask != "" {
		err = mask.UnmarshalJSON([]byte(q.Mask))
	} else {
		mask, err = fieldmask.Options{BlackListMode: q.Black}.NewFieldMask(blank(q).GetTypeDescriptor(), q.Paths...)
	}
	if err != nil {
		return
	}
	text, err := mask.MarshalJSON()
	if err != nil {
		return
	}
	a.Mask = string(text)
	data, err := hex.DecodeString(q.Data)
	if err != nil {
		return
	}
	whole := blank(q)
	if err = read(whole, data); err != nil {
		return
	}
	whole.Set_FieldMask(mask)
	if a.Written, err = write(whole); err != nil {
		return
	}
	part := blank(q)
	part.Set_FieldMask(mask)
	if err = read(part, data); err != nil {
		return
	}
	part.Set_FieldMask(nil)
	a.Read, err = write(part)
	return
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			panic(err)
		}
		a, err := ask(q)
		if err != nil {
			a.Error = err.Error()
		}
		text, err := json.Marshal(a)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(text))
	}
}
