#!/bin/bash
# node_root.sh ROOT: makes a node of kind out of a fresh Debian in ROOT. mmdebstrap calls it as its customize hook.
#
# It does what kind's own images/base/Dockerfile does, with Debian's containerd, runc and CNI plugins instead of ones
# that are compiled there, and with the component images laid into the node, so that nothing is ever pulled.
#
#   KIND_FILES   folder images/base/files of kind's module
#   HYPERKUBE    Kubernetes in one binary; kubeadm, kubelet and kubectl are links to it
#   IMAGES       folder with the archives of the component images
#   PAUSE        reference of the pause image in them
#   VERSION      Kubernetes' version, v1.34.4
set -euo pipefail
root=$1

install_kubernetes() {
  install -m 755 "$HYPERKUBE" "$root/usr/local/bin/hyperkube"
  for name in kubeadm kubelet kubectl; do ln -s ../local/bin/hyperkube "$root/usr/bin/$name"; done
  mkdir -p "$root/etc/kubernetes/manifests"
  printf %s "$VERSION" > "$root/kind/version"
}

install_kind_files() {
  # Modes as in kind's Dockerfile: in the module cache every file is read-only.
  (cd "$KIND_FILES" && find etc kind usr -type f -exec install -D -m 644 {} "$root/{}" \;)
  chmod 755 "$root"/usr/local/bin/* "$root"/kind/bin/*
  # Its units call these by the path at which kind's own build of containerd would lie.
  for name in containerd ctr; do ln -s "../../bin/$name" "$root/usr/local/bin/$name"; done
}

configure_containerd() {
  # restrict_oom_score_adj: without CAP_SYS_RESOURCE no process can lower its score, and the pod sandbox asks for it.
  # Layers stay in the content store: an image that shares them is then loaded without sending them again.
  # The other two name what only kind's own build of the node contains.
  sed -i \
    -e "s|sandbox_image = .*|sandbox_image = \"$PAUSE\"|" \
    -e 's|restrict_oom_score_adj = false|restrict_oom_score_adj = true|' \
    -e 's|discard_unpacked_layers = true|discard_unpacked_layers = false|' \
    -e '/base_runtime_spec/d' \
    -e '/^\[proxy_plugins\]/,+3d' \
    "$root/etc/containerd/config.toml"
}

install_images() {
  mkdir -p "$root/kind/images"
  cp "$IMAGES"/*.tar "$root/kind/images/"
  cat > "$root/etc/systemd/system/load-images.service" <<'UNIT'
[Unit]
Description=Import the images of the Kubernetes components
After=containerd.service
Requires=containerd.service
Before=kubelet.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -euc 'for archive in /kind/images/*.tar; do ctr --namespace k8s.io images import "$archive"; done'

[Install]
WantedBy=multi-user.target
UNIT
}

install_network() {
  # One node: a plain bridge does what kind's own network plugin does over several.
  mkdir -p "$root/opt/cni" "$root/etc/cni/net.d" "$root/kind/manifests"
  ln -s /usr/lib/cni "$root/opt/cni/bin"
  cat > "$root/etc/cni/net.d/10-bridge.conflist" <<'CONFLIST'
{"cniVersion": "0.4.0", "name": "node", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": {
    "type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
CONFLIST
  # `kind create cluster` applies this file. Nothing provisions volumes here; the class is there to be named.
  cat > "$root/kind/manifests/default-storage.yaml" <<'STORAGE'
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard}
provisioner: kubernetes.io/no-provisioner
STORAGE
}

configure_systemd() {
  # As in kind's Dockerfile: in a container there is no hardware to wait for and no kernel log to read.
  chroot "$root" bash -euo pipefail <<'CHROOT'
find /lib/systemd/system/sysinit.target.wants/ -name systemd-tmpfiles-setup.service -delete
rm -f /lib/systemd/system/multi-user.target.wants/* /etc/systemd/system/*.wants/* \
  /lib/systemd/system/local-fs.target.wants/* /lib/systemd/system/basic.target.wants/* \
  /lib/systemd/system/sockets.target.wants/*udev* /lib/systemd/system/sockets.target.wants/*initctl*
echo ReadKMsg=no >> /etc/systemd/journald.conf
ln -sf /usr/lib/systemd/systemd /sbin/init
systemctl --quiet set-default multi-user.target
systemctl --quiet enable kubelet.service containerd.service undo-mount-hacks.service load-images.service
systemctl --quiet mask systemd-binfmt.service
CHROOT
}

install_kind_files
install_kubernetes
configure_containerd
install_images
install_network
configure_systemd
