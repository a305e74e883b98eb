package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/cloudwego/kitex/client/callopt"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/remote"

	"weego/interop/kitex/kitex_gen/conversation"
	"weego/interop/kitex/kitex_gen/newer/elsewhere"
)

const (
	calls    = 10_000
	inFlight = 64
	megabyte = 1 << 20
)

// checks by name; tests/interop/test_kitex.py runs each over each transport.
var checks = []struct {
	name string
	run  func(*talk)
}{
	{"echo", echo},
	{"every", every},
	{"empty", empty},
	{"large", large},
	{"void", void},
	{"declared", declared},
	{"unknown-method", unknownMethod},
	{"unknown-service", unknownService},
	{"handler-error", handlerError},
	{"oneway", oneway},
	{"business", business},
	{"metainfo", metaInfo},
	{"backward", backward},
	{"deadline", deadline},
	{"timeout", timeout},
	{"many", many},
	{"crossing", crossing},
	{"hi", hi},
	{"steady", steady},
}

func background() context.Context { return context.Background() }

func echo(t *talk) {
	for _, text := range []string{"", "hi", "日本語 🜁 \U0010ffff \x00 end", strings.Repeat("ü", 40_000)} {
		got, err := t.client.Echo(background(), &conversation.Request{Message: text})
		t.fine(err)
		t.equal("the echo", got.Message, text)
	}
}

func full() *conversation.Every {
	name, maybe := "named", ""
	text := "chosen"
	points := []*conversation.Point{{X: 1, Y: math.Inf(1), Name: &name}, {X: -0.5}}
	inner := conversation.NewEvery()
	inner.Needed, inner.Choice = -7, &conversation.Choice{Number: new(int64)}
	return &conversation.Every{
		Needed: 1, Flag: true, Small: -128, Medium: -32768, Normal: math.MaxInt32, Large: math.MinInt64, Real: -1.5e300,
		Text: "ключ 🜁 \x00 end", Raw: []byte{0, 0x80, 1, 0xff}, Colour: conversation.Colour_BLUE,
		Numbers: []int32{0, -1, math.MaxInt32, math.MinInt32}, Words: []string{"", "a", "b"},
		Counts: map[string]int64{"one": 1, "": math.MinInt64, "много": math.MaxInt64},
		Point:  points[0], Choice: &conversation.Choice{Text: &text}, Points: points,
		Groups: map[string][]*conversation.Point{"empty": {}, "two": points},
		Nested: map[int32]map[string]float64{1: {"pi": math.Pi}, -1: {}},
		Flags:  [][]bool{{true, false}, {}, {false}}, Identities: []int64{1, 2, 3}, Maybe: &maybe, Preset: "set",
		Colours: []conversation.Colour{conversation.Colour_RED, 77, conversation.Colour_GREEN}, Raws: [][]byte{{}, {0xff, 0}},
		Names: map[conversation.Colour]string{conversation.Colour_RED: "red", 77: "unknown"},
		Deep:  []map[int16][]int32{{1: {1, 2}, -2: {}}, {}}, Inner: inner, Far: -1,
	}
}

// inOrder sorts what are lists in Go and sets in the IDL.
func inOrder(every *conversation.Every) {
	slices.Sort(every.Words)
	slices.Sort(every.Identities)
	for _, each := range every.Deep {
		for _, set := range each {
			slices.Sort(set)
		}
	}
	if every.Inner != nil {
		inOrder(every.Inner)
	}
}

func every(t *talk) {
	sent := full()
	got, err := t.client.Every(background(), sent)
	t.fine(err)
	inOrder(got)
	t.equal("the inner struct", [2]any{got.Inner.Needed, got.Inner.Preset}, [2]any{sent.Inner.Needed, "preset"})
	got.Inner, sent.Inner = nil, nil
	t.equal("every type", got, sent)
	for _, choice := range []*conversation.Choice{{Number: new(int64)}, {Point: &conversation.Point{X: 3}}} {
		sent := conversation.NewEvery()
		sent.Choice = choice
		got, err := t.client.Every(background(), sent)
		t.fine(err)
		t.equal("the union", got.Choice, choice)
	}
}

func empty(t *talk) {
	sent := conversation.NewEvery()
	sent.Choice = &conversation.Choice{Text: new(string)} // a nil union would go out as one without a member
	got, err := t.client.Every(background(), sent)
	t.fine(err)
	t.equal("the union", got.Choice, sent.Choice)
	t.equal("the default", got.Preset, "preset")
	t.holds(len(got.Numbers)+len(got.Words)+len(got.Counts)+len(got.Raw) == 0, "containers are not empty: %v", got)
	t.holds(got.Maybe == nil && got.Absent == nil && got.Inner == nil, "optional fields came back: %v", got)
}

func large(t *talk) {
	data := bytes.Repeat([]byte("\x80\x01\x00\x01\x10\x00\x00\x00"), megabyte/8)
	for range 5 {
		got, err := t.client.Blob(background(), data)
		t.fine(err)
		t.holds(bytes.Equal(got, data), "a blob of %d bytes came back as another one of %d", len(data), len(got))
	}
	text := strings.Repeat("weego ü ", megabyte/9)
	got, err := t.client.Echo(background(), &conversation.Request{Message: text})
	t.fine(err)
	t.holds(got.Message == text, "a text of %d bytes came back as another one of %d", len(text), len(got.Message))
}

func void(t *talk) {
	t.fine(t.client.Nothing(background()))
	t.fine(t.client.Check(background(), "thing"))
	sum, err := t.client.Add(background(), 2, math.MinInt64)
	t.fine(err)
	t.equal("the sum", sum, int64(math.MinInt64+2))
}

func declared(t *talk) {
	for range 3 {
		_, err := t.client.Find(background(), "nothing")
		var missing *conversation.NotFound
		t.holds(errors.As(err, &missing), "not a NotFound: %v", err)
		t.equal("NotFound", *missing, conversation.NotFound{What: "nothing", Code: 404})
		_, err = t.client.Find(background(), "secret")
		var denied *conversation.Denied
		t.holds(errors.As(err, &denied), "not a Denied: %v", err)
		t.equal("Denied", denied.Why, "it is a secret: ключ")
		t.holds(errors.As(t.client.Check(background(), "nothing"), &missing), "check declares NotFound")
		t.equal("NotFound", *missing, conversation.NotFound{What: "nothing", Code: -1})
		found, err := t.client.Find(background(), "thing")
		t.fine(err)
		t.equal("the name", found.GetName(), "thing")
	}
}

// refused checks that err is the peer's application exception of that type, with that text in it.
func (t *talk) refused(err error, number int32, text string) {
	var refusal *remote.TransError
	t.holds(errors.As(err, &refusal), "not an application exception: %v", err)
	t.equal("the exception's type", refusal.TypeID(), number)
	t.holds(strings.Contains(err.Error(), text), "%q is not in %q", text, err)
}

func unknownMethod(t *talk) {
	for range 3 {
		_, err := t.client.Missing(background(), "x")
		t.refused(err, remote.UnknownMethod, "unknown method missing (service Conversation)")
		t.fine(t.client.MissingOneway(background(), "x"))
		echo(t)
	}
}

// unknownService: only a TTHeader names the service; without one, the method is all that is unknown.
func unknownService(t *talk) {
	other, err := elsewhere.NewClient(t.callee, t.options()...)
	t.fine(err)
	_, err = other.Nowhere(background(), "x")
	if t.hasHeader() {
		t.refused(err, remote.UnknownService, "unknown service Elsewhere, method nowhere")
	} else {
		t.refused(err, remote.UnknownMethod, "unknown method nowhere")
	}
}

func handlerError(t *talk) {
	for range 3 {
		_, err := t.client.Fail(background(), "on purpose: ключ")
		t.refused(err, remote.InternalError, "biz error: ")
		t.refused(err, remote.InternalError, "on purpose: ключ")
		echo(t)
	}
}

func oneway(t *talk) {
	before, err := t.client.Noted(background())
	t.fine(err)
	for number := range 20 {
		t.fine(t.client.Note(background(), strconv.Itoa(number)))
	}
	until := time.Now().Add(t.timeout)
	for now := before; now < before+20; {
		t.holds(time.Now().Before(until), "of 20 notes %d arrived", now-before)
		now, err = t.client.Noted(background())
		t.fine(err)
	}
}

func business(t *talk) {
	extra := map[string]string{"reason": "embargo \"quoted\"", "ключ": "значение"}
	for _, with := range []map[string]string{extra, nil} {
		_, err := t.client.Refuse(background(), -404, "not found: ключ", with)
		if !t.hasHeader() {
			// Kitex itself would answer with an empty success here.
			t.refused(err, remote.InternalError, "business status -404: not found: ключ")
			continue
		}
		status, ok := kerrors.FromBizStatusError(err)
		t.holds(ok, "not a business status: %v", err)
		t.equal("the status", status.BizStatusCode(), int32(-404))
		t.equal("the message", status.BizMessage(), "not found: ключ")
		t.holds(len(with) == len(status.BizExtra()), "extra: %v", status.BizExtra())
		for name, value := range with {
			t.equal("extra "+name, status.BizExtra()[name], value)
		}
	}
	echo(t)
}

func metaInfo(t *talk) {
	ctx := metainfo.WithValue(background(), "once", "transient ü")
	ctx = metainfo.WithPersistentValue(ctx, "user", "persistent ключ")
	facts, err := t.client.Facts(ctx)
	t.fine(err)
	want := map[string]string{"transient once": "transient ü", "persistent user": "persistent ключ", "caller": t.caller}
	for name, value := range want {
		if !t.hasHeader() {
			value = ""
		}
		t.equal(name, facts[name], value)
	}
}

func backward(t *talk) {
	ctx := metainfo.WithBackwardValues(background())
	t.fine(t.client.Tell(ctx, map[string]string{"shard": "7", "ключ": "значение"}))
	for name, want := range map[string]string{"shard": "7", "ключ": "значение"} {
		got, ok := metainfo.RecvBackwardValue(ctx, name)
		t.equal("a backward value is there", ok, t.hasHeader())
		if ok {
			t.equal(name, got, want)
		}
	}
}

func deadline(t *talk) {
	facts, err := t.client.Facts(background(), callopt.WithRPCTimeout(15*time.Second))
	t.fine(err)
	if !t.hasHeader() {
		t.equal("the deadline", facts["remaining"], "")
		return
	}
	left, err := strconv.Atoi(facts["remaining"])
	t.fine(err)
	t.holds(0 < left && left <= 15_000, "the handler has %d ms left of 15 s", left)
}

func timeout(t *talk) {
	before, err := t.client.Interrupted(background())
	t.fine(err)
	_, err = t.client.Linger(background(), 2000, callopt.WithRPCTimeout(100*time.Millisecond))
	t.holds(err != nil, "a call of two seconds came back within 100 ms")
	var refusal *remote.TransError
	// Both sides know the deadline; which of them says so first is a matter of luck.
	t.holds(kerrors.IsTimeoutError(err) || errors.As(err, &refusal) && strings.Contains(err.Error(), "DEADLINE_EXCEEDED"),
		"not a timeout: %v", err)
	echo(t)
	if t.hasHeader() {
		until := time.Now().Add(t.timeout)
		for now := before; now == before; {
			t.holds(time.Now().Before(until), "the handler never heard of its deadline")
			now, err = t.client.Interrupted(background())
			t.fine(err)
		}
	}
}

// load calls with `workers` in flight while `more` says so; how many calls, and the first few errors.
func (t *talk) load(workers int, more func() bool) (int, []error) {
	var done atomic.Int64
	var lock sync.Mutex
	var failures []error
	var all sync.WaitGroup
	for worker := range workers {
		all.Add(1)
		go func() {
			defer all.Done()
			for number := int64(0); more(); number++ {
				sum, err := t.client.Add(background(), number, int64(worker))
				if err == nil && sum != number+int64(worker) {
					err = fmt.Errorf("%d + %d is not %d", number, worker, sum)
				}
				done.Add(1)
				if err != nil {
					lock.Lock()
					failures = append(failures, err)
					lock.Unlock()
				}
			}
		}()
	}
	all.Wait()
	return int(done.Load()), failures
}

func many(t *talk) {
	var begun atomic.Int64
	done, failures := t.load(inFlight, func() bool { return begun.Add(1) <= calls })
	t.equal("calls", done, calls)
	t.holds(len(failures) == 0, "%d of %d failed, the first with: %v", len(failures), done, failures[:min(1, len(failures))])
}

// crossing has slow calls and quick ones under way at once; where connections are shared, the quick ones overtake.
func crossing(t *talk) {
	echo(t)
	var slow, quick time.Time
	var all sync.WaitGroup
	var slowErr error
	all.Add(1)
	go func() {
		defer all.Done()
		_, slowErr = t.client.Linger(background(), 800)
		slow = time.Now()
	}()
	time.Sleep(100 * time.Millisecond)
	for range 20 {
		echo(t)
	}
	quick = time.Now()
	all.Wait()
	t.fine(slowErr)
	t.holds(quick.Before(slow), "twenty quick calls took longer than one slow call")
}

// hi makes one call that is the same each time, for whoever looks at its bytes.
func hi(t *talk) {
	got, err := t.client.Echo(background(), &conversation.Request{Message: "hi"}, callopt.WithRPCTimeout(t.timeout))
	if status, ok := kerrors.FromBizStatusError(err); ok {
		fmt.Println("business status", status.BizStatusCode(), status.BizMessage())
		return
	}
	t.fine(err)
	fmt.Println("answer", got.GetMessage())
}

// steady calls without end over long connections; at SIGTERM it says how that went.
func steady(t *talk) {
	enough := make(chan os.Signal, 1)
	signal.Notify(enough, syscall.SIGTERM)
	var stop atomic.Bool
	echo(t)
	fmt.Println("calling")
	go func() {
		<-enough
		stop.Store(true)
	}()
	done, failures := t.load(8, func() bool {
		time.Sleep(time.Millisecond)
		return !stop.Load()
	})
	t.holds(len(failures) == 0, "%d of %d failed, the first with: %v", len(failures), done, failures[:min(1, len(failures))])
	fmt.Println("calls", done)
}
