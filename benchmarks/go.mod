// The peer in Go and the load program. `python -m benchmarks` builds both, beside the code that it generates.
module coral-benchmarks

go 1.26.0

require (
	connectrpc.com/connect/v2 v2.0.2
	golang.org/x/net v0.62.0
	google.golang.org/protobuf v1.36.12
)

require golang.org/x/text v0.43.0 // indirect

tool (
	connectrpc.com/connect/v2/cmd/protoc-gen-connect-go
	google.golang.org/protobuf/cmd/protoc-gen-go
)
