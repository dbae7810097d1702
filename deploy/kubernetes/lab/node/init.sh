#!/bin/bash
# Keeps what a node runs running: containerd, kubelet, kube-proxy.
name=$1
cd /
umount -l /old
mount --make-rshared /
export PATH=/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/
address=$(ip -4 -o addr show eth0 | awk '{print $4}' | cut -d/ -f1)
# The network namespace outlives a node that was killed: begin as after a reboot.
nft flush ruleset
ip link del cni0 2>/dev/null

keep() {
  log=/var/log/node/$1.log
  shift
  while :; do
    "$@" >>"$log" 2>&1
    echo "$(date) $1 ended with $?" >>"$log"
    sleep 1
  done
}
keep containerd containerd -c /etc/containerd/config.toml &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for image in /lab/images/*.tar; do # once for each disk of a node, and not at every start
  stamp=/var/lib/containerd/has-$(basename "$image")-$(stat -c %Y-%s "$image")
  [ -e "$stamp" ] || { ctr -n k8s.io images import "$image" >>/var/log/node/images.log 2>&1 && touch "$stamp"; }
done
keep kubelet kubelet --config=/etc/kubernetes/kubelet.yaml --kubeconfig=/etc/kubernetes/kubelet.kubeconfig --hostname-override="$name" --node-ip="$address" --root-dir=/var/lib/kubelet &
keep kube-proxy kube-proxy --kubeconfig=/etc/kubernetes/proxy.kubeconfig --hostname-override="$name" --proxy-mode=iptables --cluster-cidr=10.244.0.0/16 --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0 &
while :; do wait -n; sleep 1; done
