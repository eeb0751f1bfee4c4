// Command connectgo is the peer in Go: connect-go on net/http, a map under a lock, a TTL. It answers gRPC and Connect.
package main

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "coral-benchmarks/gen/coral/discovery/v1"
	"coral-benchmarks/gen/coral/discovery/v1/discoveryv1connect"
)

const (
	ttl             = 300 * time.Second
	cleanupInterval = 60 * time.Second
	refreshAfter    = 60
	longestMeshID   = 253
	keyBytes        = 32
	mostEndpoints   = 32
)

type entry struct {
	registration *pb.RegisterColonyRequest
	lastSeen     time.Time
	expiresAt    time.Time
}

type server struct {
	discoveryv1connect.UnimplementedDiscoveryServiceHandler
	mutex   sync.RWMutex
	entries map[string]entry
}

func (s *server) RegisterColony(
	_ context.Context, request *pb.RegisterColonyRequest,
) (*pb.RegisterColonyResponse, error) {
	if err := validate(request); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err.Error())
	}
	now := time.Now()
	expiresAt := now.Add(ttl)
	if !s.store(entry{request, now, expiresAt}) {
		return nil, connect.NewError(connect.CodeAlreadyExists, "already registered")
	}
	return &pb.RegisterColonyResponse{
		Success:      true,
		Ttl:          int32(ttl / time.Second),
		ExpiresAt:    timestamppb.New(expiresAt),
		RefreshAfter: refreshAfter,
	}, nil
}

func (s *server) LookupColony(
	_ context.Context, request *pb.LookupColonyRequest,
) (*pb.LookupColonyResponse, error) {
	s.mutex.RLock()
	found, ok := s.entries[request.GetMeshId()]
	s.mutex.RUnlock()
	if !ok || !time.Now().Before(found.expiresAt) {
		return nil, connect.NewError(connect.CodeNotFound, "not registered")
	}
	registration := found.registration
	return &pb.LookupColonyResponse{
		MeshId:    registration.GetMeshId(),
		Pubkey:    registration.GetPubkey(),
		Endpoints: registration.GetEndpoints(),
		Metadata:  registration.GetMetadata(),
		LastSeen:  timestamppb.New(found.lastSeen),
		ExpiresAt: timestamppb.New(found.expiresAt),
	}, nil
}

// store keeps the entry, unless another key holds a live lease on the mesh.
func (s *server) store(new entry) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	meshID := new.registration.GetMeshId()
	held, ok := s.entries[meshID]
	if ok && held.registration.GetPubkey() != new.registration.GetPubkey() && new.lastSeen.Before(held.expiresAt) {
		return false
	}
	s.entries[meshID] = new
	return true
}

func (s *server) cleanUp() {
	for now := range time.Tick(cleanupInterval) {
		s.mutex.Lock()
		for meshID, held := range s.entries {
			if !now.Before(held.expiresAt) {
				delete(s.entries, meshID)
			}
		}
		s.mutex.Unlock()
	}
}

func validate(request *pb.RegisterColonyRequest) error {
	if length := len(request.GetMeshId()); length == 0 || length > longestMeshID {
		return errors.New("mesh_id: 1 to 253 characters")
	}
	if key, err := base64.StdEncoding.DecodeString(request.GetPubkey()); err != nil || len(key) != keyBytes {
		return errors.New("pubkey: the base64 of 32 bytes")
	}
	if count := len(request.GetEndpoints()); count == 0 || count > mostEndpoints {
		return errors.New("endpoints: 1 to 32")
	}
	for _, endpoint := range request.GetEndpoints() {
		if !strings.Contains(endpoint, ":") {
			return errors.New("endpoints: each with a port")
		}
	}
	return nil
}

func main() {
	port := flag.Int("port", 8080, "port to listen on")
	cert := flag.String("tls-cert", "", "certificate, PEM; then the port speaks TLS")
	key := flag.String("tls-key", "", "its private key, PEM")
	flag.Parse()

	service := &server{entries: make(map[string]entry)}
	go service.cleanUp()
	rpcs := connect.NewServer()
	discoveryv1connect.RegisterDiscoveryServiceHandler(rpcs, service)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, rpcs)

	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	listener := &http.Server{Addr: fmt.Sprintf("127.0.0.1:%d", *port), Handler: mux, Protocols: protocols}
	if *cert != "" {
		log.Fatal(listener.ListenAndServeTLS(*cert, *key))
	}
	log.Fatal(listener.ListenAndServe())
}
