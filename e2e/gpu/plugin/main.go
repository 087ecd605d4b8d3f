// Command fakegpu is a device plugin that offers GPUs to a kubelet where there are none. A text file says which there are
// and how they do (nvml.c explains its lines); the library beside this program tells the same to whoever asks NVML.
//
//	fakegpu        runs as a pod of the node, with the node's folders /var/lib/kubelet/{fake-gpu,device-plugins}
//	fakegpu set    replaces the file by what comes on standard input
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	resource = "nvidia.com/gpu"
	endpoint = "moorage-fake-gpu.sock"

	// On the node, and in this program's pod alike.
	stateFolder   = "/var/lib/kubelet/fake-gpu/state"
	libraryFolder = "/var/lib/kubelet/fake-gpu/lib"
	stateFile     = "gpus"
	library       = "libnvidia-ml.so.1"

	// In the containers that get GPUs.
	mountedState     = "/run/fake-nvml"
	mountedLibraries = "/usr/local/nvidia/lib64"

	fields = 9
	pause  = 500 * time.Millisecond
)

func main() {
	work := serve
	if slices.Equal(os.Args[1:], []string{"set"}) {
		work = set
	}
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, "fakegpu:", err)
		os.Exit(1)
	}
}

// set takes in what the GPUs are and do from now on.
func set() error {
	content, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	return replace(filepath.Join(stateFolder, stateFile), content)
}

// serve offers the GPUs until the kubelet starts anew, which removes the sockets of all plugins: then the container ends,
// and the kubelet starts it again.
func serve() error {
	if err := install(); err != nil {
		return err
	}
	socket := filepath.Join(api.DevicePluginPath, endpoint)
	if err := os.RemoveAll(socket); err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server, failed := grpc.NewServer(), make(chan error, 1)
	api.RegisterDevicePluginServer(server, plugin{})
	go func() { failed <- server.Serve(listener) }()
	if err := register(); err != nil {
		return err
	}
	for {
		select {
		case err := <-failed:
			return err
		case <-time.After(pause):
			if _, err := os.Stat(socket); err != nil {
				return err
			}
		}
	}
}

// install puts the library where containers can have it, and a file without GPUs where there is none yet.
func install() error {
	content, err := os.ReadFile("/" + library)
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(libraryFolder, library), content); err != nil {
		return err
	}
	state := filepath.Join(stateFolder, stateFile)
	if _, err := os.Stat(state); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return replace(state, nil)
}

func register() error {
	connection, err := grpc.NewClient("unix://"+api.KubeletSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	request := &api.RegisterRequest{Version: api.Version, Endpoint: endpoint, ResourceName: resource}
	_, err = api.NewRegistrationClient(connection).Register(context.Background(), request)
	return err
}

// plugin is what the kubelet asks (k8s.io/kubelet, deviceplugin/v1beta1/api.proto).
type plugin struct {
	api.UnimplementedDevicePluginServer
}

func (plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

// ListAndWatch tells which GPUs there are, at first and whenever that or their health changes.
func (plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	for told := []byte(nil); ; {
		content, err := os.ReadFile(filepath.Join(stateFolder, stateFile))
		if err != nil {
			return err
		}
		if known := health(content); told == nil || !bytes.Equal(known, told) {
			if err := stream.Send(&api.ListAndWatchResponse{Devices: devices(known)}); err != nil {
				return err
			}
			told = known
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// Allocate says what a container needs to reach its GPUs.
func (plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	response := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		response.ContainerResponses = append(response.ContainerResponses, &api.ContainerAllocateResponse{
			Envs: map[string]string{
				"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ","),
				"LD_LIBRARY_PATH":        mountedLibraries,
				"FAKE_NVML_STATE":        filepath.Join(mountedState, stateFile),
			},
			Mounts: []*api.Mount{
				// The folder, not the file: a file that is renamed into place is another file.
				{ContainerPath: mountedState, HostPath: stateFolder, ReadOnly: true},
				{ContainerPath: mountedLibraries, HostPath: libraryFolder, ReadOnly: true},
			},
		})
	}
	return response, nil
}

// health leaves of the file's lines what the kubelet has to know: `uuid error`.
func health(content []byte) []byte {
	known := []byte{}
	for line := range strings.Lines(string(content)) {
		if parts := strings.Split(strings.TrimSpace(line), "|"); len(parts) == fields {
			known = fmt.Appendf(known, "%s %s\n", parts[0], parts[fields-1])
		}
	}
	return known
}

func devices(known []byte) []*api.Device {
	found := []*api.Device{}
	for line := range strings.Lines(string(known)) {
		uuid, failure, _ := strings.Cut(strings.TrimSpace(line), " ")
		device := &api.Device{ID: uuid, Health: api.Healthy}
		if failure != "0" {
			device.Health = api.Unhealthy
		}
		found = append(found, device)
	}
	return found
}

// replace writes a file that nobody sees half of.
func replace(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	unfinished := path + ".new"
	if err := os.WriteFile(unfinished, content, 0o644); err != nil {
		return err
	}
	return os.Rename(unfinished, path)
}
