package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"sync"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	bufferSize    = 64 << 10
	largestWindow = 1<<31 - 1
	firstWindow   = 65535
	replenishAt   = 1 << 20
)

// session is one HTTP/2 connection. Its writer takes calls, its reader ends them.
type session struct {
	with    settings
	todo    source
	seen    *tally
	framer  *h2.Framer
	slots   chan struct{}
	mutex   sync.Mutex // of what follows, and of writing
	changed *sync.Cond
	out     *bufio.Writer
	encoder *hpack.Encoder
	block   *bytes.Buffer
	due     map[uint32]time.Time
	window  int64
	drained bool
	closed  bool
}

// http2 calls over one connection, and returns whether there are no more calls.
func http2(connection net.Conn, with settings, todo source, seen *tally) bool {
	s := newSession(connection, with, todo, seen)
	s.greet()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.read(); err != nil {
			s.abandon(err)
		}
	}()
	over := s.write()
	s.finish()
	connection.Close()
	<-done
	return over
}

func newSession(connection net.Conn, with settings, todo source, seen *tally) *session {
	out := bufio.NewWriterSize(connection, bufferSize)
	block := new(bytes.Buffer)
	s := &session{
		with: with, todo: todo, seen: seen, out: out, block: block,
		framer:  h2.NewFramer(out, bufio.NewReaderSize(connection, bufferSize)),
		slots:   make(chan struct{}, with.streams),
		encoder: hpack.NewEncoder(block),
		due:     make(map[uint32]time.Time),
		window:  firstWindow,
	}
	s.framer.SetReuseFrames()
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	s.changed = sync.NewCond(&s.mutex)
	return s
}

func (s *session) greet() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.out.WriteString(h2.ClientPreface)
	s.framer.WriteSettings(h2.Setting{ID: h2.SettingEnablePush, Val: 0})
	s.framer.WriteWindowUpdate(0, largestWindow-firstWindow)
	s.out.Flush()
}

// write sends calls until there are no more, or the connection ends; it returns whether there are no more.
func (s *session) write() bool {
	for stream := uint32(1); stream < largestWindow; stream += 2 {
		select {
		case s.slots <- struct{}{}:
		default:
			s.flush()
			s.slots <- struct{}{}
		}
		if s.isClosed() {
			return false
		}
		if s.with.paced {
			s.flush()
		}
		next, due, more := s.todo.take()
		if !more {
			return true
		}
		s.send(stream, next, due)
	}
	return false
}

func (s *session) flush() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.out.Flush()
}

func (s *session) isClosed() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.closed || s.drained
}

func (s *session) send(stream uint32, next *call, due time.Time) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for s.window < int64(len(next.body)) && !s.closed {
		s.out.Flush()
		s.changed.Wait()
	}
	s.window -= int64(len(next.body))
	s.due[stream] = due
	s.framer.WriteHeaders(h2.HeadersFrameParam{
		StreamID: stream, BlockFragment: s.headers(next.Path), EndHeaders: true,
	})
	s.framer.WriteData(stream, true, next.body)
}

func (s *session) headers(path string) []byte {
	scheme := "http"
	if s.with.tls != nil {
		scheme = "https"
	}
	s.block.Reset()
	for _, field := range [...]hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: scheme},
		{Name: ":path", Value: path},
		{Name: ":authority", Value: s.with.address},
		{Name: "te", Value: "trailers"},
		{Name: "content-type", Value: s.with.contentType},
	} {
		s.encoder.WriteField(field)
	}
	return s.block.Bytes()
}

// finish sends what is left and waits for the answers to it.
func (s *session) finish() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.out.Flush()
	for len(s.due) > 0 && !s.closed {
		s.changed.Wait()
	}
	s.closed = true
}

// read takes frames until the connection ends.
func (s *session) read() error {
	received := uint32(0)
	messages := make(map[uint32]bool) // streams on which a message came
	for {
		frame, err := s.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case *h2.DataFrame:
			received += frame.Length
			messages[frame.StreamID] = true
			if frame.StreamEnded() {
				s.answered(frame.StreamID, "the stream ended without trailers")
			}
		case *h2.MetaHeadersFrame:
			if frame.StreamEnded() {
				s.answered(frame.StreamID, verdict(frame, messages[frame.StreamID]))
				delete(messages, frame.StreamID)
			}
		case *h2.RSTStreamFrame:
			s.answered(frame.StreamID, frame.ErrCode.String())
		default:
			s.control(frame)
		}
		if received >= replenishAt {
			s.locked(func() { s.framer.WriteWindowUpdate(0, received) })
			received = 0
		}
	}
}

// verdict returns why the answer that ends with these headers is no success, or nothing.
func verdict(trailers *h2.MetaHeadersFrame, message bool) string {
	status, text := "", ""
	for _, field := range trailers.Fields {
		switch field.Name {
		case "grpc-status":
			status = field.Value
		case "grpc-message":
			text = field.Value
		}
	}
	if status != "0" {
		return fmt.Sprintf("gRPC status %q: %.*s", status, longestExample, text)
	}
	if !message {
		return "no message"
	}
	return ""
}

func (s *session) answered(stream uint32, reason string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	due, open := s.due[stream]
	if !open {
		return
	}
	delete(s.due, stream)
	if reason == "" {
		s.seen.ok(due)
	} else {
		s.seen.fail(reason)
	}
	<-s.slots
	s.changed.Broadcast()
}

func (s *session) control(frame h2.Frame) {
	switch frame := frame.(type) {
	case *h2.SettingsFrame:
		if !frame.IsAck() {
			s.locked(func() { s.framer.WriteSettingsAck() })
		}
	case *h2.PingFrame:
		if !frame.IsAck() {
			s.locked(func() { s.framer.WritePing(true, frame.Data) })
		}
	case *h2.WindowUpdateFrame:
		if frame.StreamID == 0 {
			s.locked(func() { s.window += int64(frame.Increment) })
		}
	case *h2.GoAwayFrame:
		s.locked(func() { s.drained = true })
	}
}

func (s *session) locked(change func()) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	change()
	s.out.Flush()
	s.changed.Broadcast()
}

// abandon counts what was open when the connection ended, unless we ended it.
func (s *session) abandon(err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if !s.closed {
		for range s.due {
			s.seen.fail(err.Error())
		}
	}
	s.closed = true
	clear(s.due)
	s.changed.Broadcast()
	select { // the writer may wait for a slot that nobody will free
	case <-s.slots:
	default:
	}
}
