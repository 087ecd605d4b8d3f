module moorage.dev/e2e/gpu/plugin

go 1.24.0

require (
	google.golang.org/grpc v1.78.0
	k8s.io/kubelet v0.34.4
)

require (
	golang.org/x/net v0.48.0 // indirect
	golang.org/x/sys v0.39.0 // indirect
	golang.org/x/text v0.32.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20251213004720-97cd9d5aeac2 // indirect
	google.golang.org/protobuf v1.36.11 // indirect
)
