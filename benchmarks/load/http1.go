package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

const longestExample = 200

// http1 calls over one connection, and returns whether there are no more calls.
func http1(connection net.Conn, with settings, todo source, seen *tally) bool {
	reader := bufio.NewReader(connection)
	for {
		next, due, more := todo.take()
		if !more {
			return true
		}
		if _, err := connection.Write(request(next, with)); err != nil {
			seen.fail(err.Error())
			return false
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			seen.fail(err.Error())
			return false
		}
		body, err := io.ReadAll(response.Body)
		switch {
		case err != nil:
			seen.fail(err.Error())
			return false
		case response.StatusCode != http.StatusOK:
			seen.fail(fmt.Sprintf("HTTP %d: %.*s", response.StatusCode, longestExample, body))
		default:
			seen.ok(due)
		}
		if response.Close {
			return false
		}
	}
}

func request(next *call, with settings) []byte {
	head := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n",
		next.Path, with.address, with.contentType, len(next.body))
	if with.once {
		head = append(head, "Connection: close\r\n"...)
	}
	head = append(head, "\r\n"...)
	return append(head, next.body...)
}

// security returns how to check the server's certificate, or nil without an authority.
func security(ca string, http1 bool) (*tls.Config, error) {
	if ca == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", ca)
	}
	protocol := "h2"
	if http1 {
		protocol = "http/1.1"
	}
	return &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{protocol}}, nil
}
