// Command load calls a server as fast as it answers, or at a given rate, and checks each answer.
//
// It exists for what h2load cannot do: a body of its own for each call, one call a connection, latency measured from
// when a call was due, and an error status in trailers taken for what it is. It prints one JSON object.
package main

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const patience = 10 * time.Second // with a connection, and with the last answers

// One call of the file: bodies are sent as they are, with gRPC's length prefix already before them.
type call struct {
	Path string `json:"path"`
	Body string `json:"body"`
	body []byte
}

type settings struct {
	address     string
	contentType string
	http1       bool
	once        bool
	paced       bool // calls may have to wait until they are due
	streams     int
	tls         *tls.Config
}

// source hands out calls: the next one and when it is due, or false when there are no more.
type source interface {
	take() (*call, time.Time, bool)
}

// plan hands out the calls in order, each with the time at which it is due.
type plan struct {
	calls    []call
	next     atomic.Int64
	start    time.Time
	end      time.Time
	most     int64
	interval time.Duration
}

func (p *plan) take() (*call, time.Time, bool) {
	number := p.next.Add(1) - 1
	now := time.Now()
	due := now
	if p.interval > 0 {
		due = p.start.Add(time.Duration(number) * p.interval)
	}
	if now.After(p.end) || due.After(p.end) || (p.most > 0 && number >= p.most) {
		return nil, due, false
	}
	time.Sleep(time.Until(due))
	return &p.calls[number%int64(len(p.calls))], due, true
}

// single hands out one call: the only one of its connection.
type single struct {
	call *call
	due  time.Time
}

func (s *single) take() (*call, time.Time, bool) {
	next := s.call
	s.call = nil
	return next, s.due, next != nil
}

// tally is what one connection saw.
type tally struct {
	settled   time.Time // what is due before is not measured: connections are still being made
	calls     int
	latencies []time.Duration
	failed    int
	example   string
}

func (t *tally) ok(due time.Time) {
	t.calls++
	if !due.Before(t.settled) {
		t.latencies = append(t.latencies, time.Since(due))
	}
}

func (t *tally) fail(reason string) {
	t.failed++
	t.example = reason
}

type report struct {
	Calls   int     `json:"calls"`
	Failed  int     `json:"failed"`
	Example string  `json:"example"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
}

func main() {
	address := flag.String("address", "127.0.0.1:8080", "host:port of the server")
	file := flag.String("calls", "", "JSON file: a list of {path, body (base64)}")
	contentType := flag.String("content-type", "application/grpc", "of each request")
	http1 := flag.Bool("http1", false, "HTTP/1.1 instead of HTTP/2")
	once := flag.Bool("once", false, "a new connection for each call")
	ca := flag.String("ca", "", "certificate authority, PEM; then over TLS")
	connections := flag.Int("connections", 8, "at the same time")
	streams := flag.Int("streams", 8, "calls at the same time on one HTTP/2 connection")
	duration := flag.Duration("duration", 3*time.Second, "of the run")
	rate := flag.Float64("rate", 0, "calls a second; 0: as many as are answered")
	most := flag.Int64("count", 0, "end after so many calls; 0: go by -duration alone")
	flag.Parse()

	calls, err := read(*file)
	check(err)
	security, err := security(*ca, *http1)
	check(err)
	with := settings{*address, *contentType, *http1, *once, *rate > 0, *streams, security}
	begin := time.Now()
	todo := &plan{calls: calls, start: begin, end: begin.Add(*duration), most: *most}
	if *rate > 0 {
		todo.interval = time.Duration(float64(time.Second) / *rate)
	}
	tallies := run(with, todo, *connections)
	check(json.NewEncoder(os.Stdout).Encode(summary(tallies, time.Since(begin))))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func read(file string) ([]call, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var calls []call
	if err := json.Unmarshal(data, &calls); err != nil {
		return nil, err
	}
	for i := range calls {
		if calls[i].body, err = base64.StdEncoding.DecodeString(calls[i].Body); err != nil {
			return nil, err
		}
	}
	if len(calls) == 0 {
		return nil, fmt.Errorf("%s has no calls", file)
	}
	return calls, nil
}

// run works on the plan over so many connections, and returns what each saw.
func run(with settings, todo *plan, connections int) []tally {
	tallies := make([]tally, connections)
	var group sync.WaitGroup
	for i := range tallies {
		if with.paced && !with.once {
			tallies[i].settled = todo.start.Add(todo.end.Sub(todo.start) / 4)
		}
		group.Go(func() { work(with, todo, &tallies[i]) })
	}
	group.Wait()
	return tallies
}

// work calls over one connection, or over one after the other.
func work(with settings, todo *plan, seen *tally) {
	for !time.Now().After(todo.end) {
		var calls source = todo
		if with.once { // before connecting, so that the time this takes is part of the latency
			next, due, more := todo.take()
			if !more {
				return
			}
			calls = &single{next, due}
		}
		connection, err := dial(with)
		if err != nil {
			seen.fail(err.Error())
			time.Sleep(10 * time.Millisecond)
			continue
		}
		connection.SetDeadline(todo.end.Add(patience))
		speak := http2
		if with.http1 {
			speak = http1
		}
		over := speak(connection, with, calls, seen)
		connection.Close()
		if over && !with.once {
			return
		}
	}
}

func dial(with settings) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: patience}
	if with.tls == nil {
		return dialer.Dial("tcp", with.address)
	}
	return tls.DialWithDialer(dialer, "tcp", with.address, with.tls)
}

func summary(tallies []tally, elapsed time.Duration) report {
	var all []time.Duration
	result := report{Seconds: elapsed.Seconds()}
	for _, one := range tallies {
		all = append(all, one.latencies...)
		result.Calls += one.calls
		result.Failed += one.failed
		if one.example != "" {
			result.Example = one.example
		}
	}
	slices.Sort(all)
	result.P50 = percentile(all, 0.50)
	result.P99 = percentile(all, 0.99)
	return result
}

func percentile(sorted []time.Duration, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := int(share * float64(len(sorted)-1))
	return float64(sorted[at].Microseconds()) / 1000
}
