package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// The nodes are connected by a bridge in a namespace of its own, where this
// machine's firewall does not see it:
//
//	this machine ── cable ──┐
//	            node 1 ── bridge (namespace launchgate-lab) ── node 2 …
const fabric = "launchgate-lab"

const cableName = "lg-lab"

func nodeName(i int) string { return fmt.Sprintf("lab-%d", i) }

func nodeIP(i int) string { return fmt.Sprintf("10.77.0.1%d", i) }

func podCIDR(i int) string { return fmt.Sprintf("10.244.%d.0/24", i) }

// cable makes the network of the nodes, after removing an earlier one.
func (c *cluster) cable(ctx context.Context) error {
	c.uncable(ctx)
	bridge := [][]string{
		{"netns", "add", fabric},
		{"-n", fabric, "link", "set", "lo", "up"},
		{"-n", fabric, "link", "add", "br0", "type", "bridge"},
		{"-n", fabric, "link", "set", "br0", "up"},
		{"link", "add", cableName, "type", "veth", "peer", "name", "p-host", "netns", fabric},
		{"-n", fabric, "link", "set", "p-host", "master", "br0"},
		{"-n", fabric, "link", "set", "p-host", "up"},
		{"addr", "add", hostIP + "/24", "dev", cableName},
		{"link", "set", cableName, "up"},
	}
	for i := 1; i <= c.nodes; i++ {
		n, port := nodeName(i), fmt.Sprintf("p-%d", i)
		bridge = append(bridge, [][]string{
			{"netns", "add", n},
			{"-n", n, "link", "set", "lo", "up"},
			{"-n", n, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", fabric},
			{"-n", fabric, "link", "set", port, "master", "br0"},
			{"-n", fabric, "link", "set", port, "up"},
			{"-n", n, "addr", "add", nodeIP(i) + "/24", "dev", "eth0"},
			{"-n", n, "link", "set", "eth0", "up"},
			// The gateway does not matter: kube-proxy replaces the address
			// before it is used.
			{"-n", n, "route", "add", serviceCIDR, "via", hostIP},
		}...)
	}
	for i := 1; i <= c.nodes; i++ {
		for j := 1; j <= c.nodes; j++ {
			if i != j {
				bridge = append(bridge, []string{"-n", nodeName(i), "route", "add", podCIDR(j), "via", nodeIP(j)})
			}
		}
	}
	for _, args := range bridge {
		if err := ip(ctx, args...); err != nil {
			return err
		}
	}
	if out, err := exec.CommandContext(ctx, "ip", "netns", "exec", fabric, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0").CombinedOutput(); err != nil {
		return fmt.Errorf("sysctl: %s", strings.TrimSpace(string(out)))
	}
	for i := 1; i <= c.nodes; i++ {
		if out, err := exec.CommandContext(ctx, "ip", "netns", "exec", nodeName(i), "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0").CombinedOutput(); err != nil {
			return fmt.Errorf("sysctl: %s", strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// uncable removes the network, as far as it exists.
func (c *cluster) uncable(ctx context.Context) {
	for i := 1; i <= maxNodes; i++ {
		_ = ip(ctx, "netns", "del", nodeName(i))
	}
	_ = ip(ctx, "netns", "del", fabric)
	_ = ip(ctx, "link", "del", cableName)
}

func ip(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %s", strings.Join(args, " "), strings.TrimSpace(string(out)))
	}
	return nil
}
