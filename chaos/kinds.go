package chaos

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/scenarios"
)

const (
	needsNetwork = "no particular target. In launchgate's own deployment (target.local) the kernel plays the fault if it can (Linux, root%s; launchgate tries this before the run), and the nodes of the replicas get their own network namespaces. Otherwise a TCP proxy in front of every replica plays it, without root. A service that already runs (target.endpoint) counts as one replica, with one such proxy between it and the load. Keys: for"
	strikesNode  = ". When the kernel plays the fault, it affects all traffic of the replica's node"
)

// Kinds is the catalogue, in the order of scenarios.FaultKinds.
var Kinds = slices.SortedFunc(slices.Values(entries), func(a, b Kind) int {
	return cmp.Compare(slices.Index(scenarios.FaultKinds, a.Name), slices.Index(scenarios.FaultKinds, b.Name))
})

// entries has one entry for each kind of fault, in any order. What a gate may say of
// it, and what its readers have to know, is its FaultKind; how a target does it is a
// capability of that target's.
var entries = []Kind{
	{
		FaultKind: scenarios.PodKill,
		Does:      "sends SIGKILL to the process of one replica while it serves streams",
		Needs:     "launchgate's own deployment (target.local)",
		Seen:      "the signal has ended the process; gone when the gateway routes to a new process of the replica",
		Simulates: "a crash, an OOM kill, an evicted or deleted pod",
		Example:   "{kind: pod-kill, target: busiest, at: 5s, min_streams: 2}",
		ask:       on(deploy.KillReplica, deploy.ReplicaKiller.KillReplica),
	},
	{
		FaultKind: scenarios.PodHang,
		Does:      "stops the process of one replica with SIGSTOP for a time: the process exists and its port accepts connections, but it answers nothing",
		Needs:     "launchgate's own deployment (target.local) on Linux. Keys: for",
		Seen:      "the kernel reports the process as stopped (state T), and a request to its port gets no answer in 300 ms; gone when the process runs and the gateway routes to it",
		Simulates: "a deadlock, a GPU call that never returns, a swapping machine: a replica that looks alive but does not work",
		Example:   "{kind: pod-hang, target: busiest, at: 5s, for: 10s, min_streams: 1}",
		ask:       on(deploy.HangReplica, deploy.ReplicaHanger.HangReplica),
	},
	{
		FaultKind: scenarios.PodSlow,
		Does:      "limits one replica to the given number of cores, with a control group",
		Needs:     "launchgate's own deployment (target.local), and the right to create control groups (Linux, root). Keys: for, cores",
		Seen:      "the kernel counts the time for which it throttled the process; gone when the process has left the group and the gateway routes to it",
		Simulates: "a noisy neighbour, thermal throttling, a CPU limit: a replica that answers late",
		Example:   "{kind: pod-slow, target: replica-0, at: 5s, for: 20s, cores: 0.2}",
		ask:       on(deploy.SlowReplica, deploy.ReplicaSlower.SlowReplica),
	},
	{
		FaultKind: scenarios.GatewayKill,
		Does:      "sends SIGKILL to the gateway, which every request passes",
		Needs:     "launchgate's own deployment (target.local)",
		Seen:      "the signal has ended the process; gone when a new gateway routes to every replica that the old one routed to",
		Simulates: "the crash of an ingress or load balancer that has no standby",
		Example:   "{kind: gateway-kill, at: 5s}",
		ask:       on(deploy.KillGateway, deploy.GatewayKiller.KillGateway),
	},
	{
		FaultKind: scenarios.NodeLoss,
		Does:      "takes down the link of a simulated node, ends all its processes at once with SIGKILL, and prevents their restart for a time (for) or until the load ends. Their peers get no notice. If nodes have no network of their own, only the processes end, and the kernel resets their connections. With disk: lost the node also holds the gateway and its ledger, and its disk is lost for good, as with ledger-loss",
		Needs:     "launchgate's own deployment (target.local). target.local.nodes sets the number of nodes (default: one for each replica). To take down the network too, the right to create network namespaces (Linux, root). For disk: lost, a gateway that is not plain",
		Seen:      "every process of the node has ended and none has come back by the end of the fault; a connection to the node gets no answer; gone when the gateway routes to new processes of all its replicas",
		Simulates: "a machine that loses power and the contents of its memory, or that never comes back and loses its disk",
		Example:   "{kind: node-loss, target: random, at: 5s, for: 20s, disk: lost}",
		ask:       on(deploy.TakeNode, deploy.NodeTaker.TakeNode),
	},
	{
		FaultKind: scenarios.NodeDrain,
		Does:      "sends SIGTERM to every replica of one node, and SIGKILL when their notice (20 s without the key) is over. They are not replaced for a time (for) or until the load ends. On Kubernetes the node takes no pods meanwhile, and the pods are evicted, which a disruption budget can hold up",
		Needs:     "launchgate's own deployment (target.local), or Kubernetes. target.local.nodes sets the number of nodes (default: one for each replica). Keys: for, notice",
		Seen:      "the processes have ended, by themselves within the notice or by SIGKILL after it, and none has come back by the end of the fault; gone when the gateway routes to new processes of all of them",
		Simulates: "maintenance of a machine: an upgrade of its kernel or of Kubernetes, an autoscaler that removes nodes",
		Example:   "{kind: node-drain, target: busiest, at: 5s, for: 20s, notice: 10s}",
		ask:       on(deploy.DrainNode, deploy.NodeDrainer.DrainNode),
	},
	{
		FaultKind: scenarios.SpotPreemption,
		Does:      "sends SIGTERM to one replica, and SIGKILL when its notice is over. With for, the replica is not replaced for that time",
		Needs:     "launchgate's own deployment (target.local). Keys: notice",
		Seen:      "the process has ended, by itself within the notice or by SIGKILL after it; gone when the gateway routes to a new process",
		Simulates: "a spot instance that the cloud provider takes back after a notice of thirty seconds or two minutes",
		Example:   "{kind: spot-preemption, target: busiest, at: 5s, notice: 10s, for: 20s}",
		ask:       on(deploy.Preempt, deploy.Preempter.Preempt),
	},
	{
		FaultKind: scenarios.DelayedNetwork,
		Does:      "adds a delay to every round trip between the gateway and one replica, half of it in each direction" + strikesNode,
		Needs:     fmt.Sprintf(needsNetwork, ", netem") + ", delay",
		Seen:      "a request to the replica takes longer than before by the delay; gone when it no longer does",
		Simulates: "a replica in another zone or region, a congested path",
		Example:   "{kind: network-delay, target: replica-0, at: 5s, for: 20s, delay: 200ms}",
		ask:       on(deploy.ShapeNetwork, deploy.NetworkShaper.ShapeNetwork),
	},
	{
		FaultKind: scenarios.LossyNetwork,
		Does:      "drops a share of the packets between the gateway and one replica, in each direction. TCP retransmits them after at least 200 ms, and all data behind them waits. The proxy imitates this delay" + strikesNode,
		Needs:     fmt.Sprintf(needsNetwork, ", netem") + ", loss",
		Seen:      "packets are counted as lost, and a request to the replica took 200 ms longer than before; gone when no packets are lost and requests are as quick as before",
		Simulates: "a bad cable, an overloaded switch, a wireless link",
		Example:   "{kind: network-loss, target: replica-0, at: 5s, for: 20s, loss: 10%}",
		ask:       on(deploy.ShapeNetwork, deploy.NetworkShaper.ShapeNetwork),
	},
	{
		FaultKind: scenarios.NarrowNetwork,
		Does:      "limits the bytes per second between the gateway and one replica, in each direction, for all connections together" + strikesNode,
		Needs:     fmt.Sprintf(needsNetwork, ", tbf") + ", bandwidth",
		Seen:      "a request of known size takes as long as the bandwidth implies; gone when it is quick again",
		Simulates: "a saturated, shaped or metered link",
		Example:   "{kind: network-bandwidth, target: replica-0, at: 5s, for: 20s, bandwidth: 64KiB}",
		ask:       on(deploy.ShapeNetwork, deploy.NetworkShaper.ShapeNetwork),
	},
	{
		FaultKind: scenarios.NodePartition,
		Does:      "cuts the network between the gateway and the node of one replica. The cut is silent (nothing arrives and no error is reported) or resets connections (cut: reset, always played by a proxy). A silent proxy still accepts connections",
		Needs:     fmt.Sprintf(needsNetwork, ""),
		Seen:      "a request through the cut gets no answer or is refused, while the replica still answers a direct request or one from within its node; gone when the gateway routes to the replica again",
		Simulates: "a network partition: a failed switch, a wrong firewall rule",
		Example:   "{kind: node-partition, target: busiest, at: 5s, for: 20s, cut: silent}",
		ask:       on(deploy.ShapeNetwork, deploy.NetworkShaper.ShapeNetwork),
	},
	{
		FaultKind: scenarios.CPUStress,
		Does:      "keeps the given number of cores of the machine busy with a process beside the service",
		Needs:     "launchgate's own deployment (target.local) on Linux. The load generator gets less CPU too. Keys: for, cores",
		Seen:      "the kernel counts CPU time of the busy process; gone when that process has ended",
		Simulates: "another program on the same node: a batch job, a backup, a virus scan",
		Example:   "{kind: cpu-stress, at: 5s, for: 20s, cores: 2}",
		ask:       on(deploy.BurnCores, deploy.CoreBurner.BurnCores),
	},
	{
		FaultKind: scenarios.MemoryPressure,
		Does:      "limits how much more memory one replica may take, with a control group. Beyond the limit the kernel's OOM killer ends the process",
		Needs:     "launchgate's own deployment (target.local), and the right to create control groups (Linux, root). Keys: for, memory",
		Seen:      "the kernel counts how often the process reached the limit; gone when the limit is removed and the gateway routes to the replica",
		Simulates: "a memory limit that is too small, a memory leak, a node that runs out of memory",
		Example:   "{kind: memory-pressure, target: busiest, at: 5s, for: 20s, memory: 16MiB}",
		ask:       on(deploy.LimitMemory, deploy.MemoryLimiter.LimitMemory),
	},
	{
		FaultKind: scenarios.GPUOOM,
		Does:      "takes the memory of one device, with a process beside the replicas that compute on it, and leaves only the given amount. On the CPU this is the budget in the servers' shared file, on a GPU the GPU memory. target chooses the replica whose GPU it is (busiest, random or a name); without it, it is the GPU through whose replicas most streams run. Replicas on other GPUs are not affected",
		Needs:     "launchgate's own deployment (target.local) on Linux. Keys: for, memory (the amount left to the replicas)",
		Seen:      "the device reports that no more than this amount is free, and how much less that is than before; gone when the process has ended and the memory is free again",
		Simulates: "another program on the same GPU, its memory leak, fragmentation: KV caches that cannot grow",
		Example:   "{kind: gpu-oom, at: 5s, for: 20s, memory: 1MiB}",
		ask:       on(deploy.FillDevice, deploy.DeviceFiller.FillDevice),
	},
	{
		FaultKind: scenarios.GPUThrottle,
		Does:      "lowers the power limit of one GPU to a share of what it was, through NVML, so that the driver lowers its clocks. target chooses the replica whose GPU it is (busiest, random or a name); without it, it is the GPU through whose replicas most streams run. All programs on that GPU are slower while it works hard; replicas on other GPUs are not affected",
		Needs:     "launchgate's own deployment (target.local) on a GPU, and the right to change its settings (Linux, root, and a driver that permits it; a container or a virtual GPU often has none). Keys: for, power (the share of the limit that is left, not below the least that the GPU accepts)",
		Seen:      "NVML reports the lower limit, and the GPU draws no more than that; gone when NVML reports the earlier limit again",
		Simulates: "a GPU that is throttled: a cooling or power failure, a power cap of the data centre, a bad card that is slower than the others",
		Example:   "{kind: gpu-throttle, target: busiest, at: 5s, for: 20s, power: 50%}",
		ask:       on(deploy.ThrottleDevice, deploy.DeviceThrottler.ThrottleDevice),
	},
	{
		FaultKind: scenarios.KVExhaustion,
		Does:      "fills the KV cache of one replica with contexts as long as its model allows, half prompt and half answer. A process beside the service sends the requests directly to the replica, as many at once as it takes",
		Needs:     "launchgate's own deployment (target.local) on Linux, with a KV cache so small that the 32 sequences that run at once can fill it (target.local.kv_cache; 64MiB for the built-in model). Keys: for",
		Seen:      "the replica reports that 90 % of its KV blocks are in use; gone when the process has ended, fewer blocks are in use and the gateway routes to the replica",
		Simulates: "users with very long prompts, agents that keep their whole history, a KV cache that is too small for its traffic",
		Example:   "{kind: kv-exhaustion, target: busiest, at: 5s, for: 20s}",
		ask:       on(deploy.FillCache, deploy.CacheFiller.FillCache),
	},
	{
		FaultKind: scenarios.CertificateExpiry,
		Does:      "replaces the gateway's certificate by an expired one of the same authority, and puts the valid one back. Open connections stay open; only new connections are refused. Load over kept connections may not notice, so the probes of a scenario with this fault open a new connection each time",
		Needs:     "launchgate's own deployment (target.local) with a gateway that is not plain. Keys: for",
		Seen:      "a new connection of a verifying client fails because the certificate has expired; gone when a new connection succeeds",
		Simulates: "a certificate that was not renewed because the renewal job failed unnoticed",
		Example:   "{kind: certificate-expiry, at: 5s, for: 10s}",
		ask:       on(deploy.ExpireCertificate, deploy.CertificateExpirer.ExpireCertificate),
	},
	{
		FaultKind: scenarios.LedgerLoss,
		Does:      "ends the gateway and the replication of its ledger with SIGKILL and deletes the ledger's files. With for, the disk stays away for that time. The deployment then restores the ledger from its second place. Without a second place (target.local.gateway.unreplicated) it begins an empty ledger with the same API keys",
		Needs:     "launchgate's own deployment (target.local) with a gateway that is not plain, and durability in the scenario to measure what is lost",
		Seen:      "both processes and the files are gone; the fault is over when a ledger exists and a new gateway routes to every replica that the old one routed to",
		Simulates: "sudden loss of the ledger's disk: a failed volume, a node that does not come back",
		Example:   "{kind: ledger-loss, at: 5s, for: 2s}",
		ask:       on(deploy.LoseLedger, deploy.LedgerLoser.LoseLedger),
	},
	{
		FaultKind: scenarios.DiskFull,
		Does:      "fills the disk of the gateway's ledger and audit log with a file. A gate with this fault puts them on a small file system in memory, so that no disk of the machine is filled",
		Needs:     "launchgate's own deployment (target.local) with a gateway that is not plain, and the right to mount a file system (Linux, root). Keys: for",
		Seen:      "the disk has no free space and the kernel refuses a write (no space left on device); gone when a write succeeds again",
		Simulates: "logs that are not rotated, a volume that is too small, another program on the same disk",
		Example:   "{kind: disk-full, at: 5s, for: 5s}",
		ask:       on(deploy.FillDisk, deploy.DiskFiller.FillDisk),
	},
	{
		FaultKind: scenarios.ClockSkew,
		Does:      "shifts the wall clock of one replica by a given time, forwards or backwards (skew: -90s), without affecting other processes. launchgate changes, in the memory of that process, the vDSO code that reads the time. The monotonic clock, which timeouts use, is unchanged",
		Needs:     "launchgate's own deployment (target.local) on Linux, amd64, with a kernel that permits writing to /proc/PID/mem. Root is not needed. Keys: for, skew",
		Seen:      "the Date header of a health answer differs by the skew from launchgate's clock; gone when it is as before and the gateway routes to the replica",
		Simulates: "a machine without time synchronisation, a resumed virtual machine, a clock set by hand",
		Example:   "{kind: clock-skew, target: replica-0, at: 5s, for: 20s, skew: 90s}",
		ask:       on(deploy.SkewClock, deploy.ClockSkewer.SkewClock),
	},
	{
		FaultKind: scenarios.BadRelease,
		Does:      "rolls out a bad version as launchgate release does; the deployment has to detect it. release selects the defect: corrupt-model (a truncated copy of the served model), erroring (the served model with a context so short that it refuses every prompt), slow (the served model with layers that add nothing, so that the same answers take at least three times as long) or bad-config (invalid limits for the gateway)",
		Needs:     "launchgate's own deployment (target.local) with a gateway that is not plain. For erroring and slow, load on which the canary can be judged. For slow, a GGUF file. Keys: release",
		Seen:      "the canary runs the bad version, or the limits were refused; gone when the deployment has rolled it back, every replica runs its earlier command, and the gateway routes to all replicas as before. If the version goes live, or is not rolled back in the time of the key within, launchgate takes it back and the fault fails",
		Simulates: "an interrupted upload, an untested version, a typing error in a configuration",
		Example:   "{kind: bad-release, at: 5s, release: corrupt-model}",
		ask:       on(deploy.RollOutBad, deploy.BadReleaser.RollOutBad),
	},
}
