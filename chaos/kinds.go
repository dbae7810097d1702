package chaos

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/scenarios"
)

const (
	needsNetwork = "nothing. In a deployment of launchgate's own (target.local) the kernel plays it where it can, which is tried out (Linux, root%s): the nodes of the replicas then have network namespaces of their own. Elsewhere it is played by a TCP proxy of launchgate's in front of every replica, which takes no root. A service that was there before (target.endpoint) has one such proxy between the load and it, and is one replica; for"
	strikesNode  = ". Played by the kernel it strikes all that the node of the replica sends and gets"
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
		Does:      "sends SIGKILL to the process of one replica while streams run through it",
		Needs:     "a deployment of launchgate's own (target.local)",
		Seen:      "the process is gone and was ended by the signal; gone again when the gateway routes to a new process of it",
		Simulates: "a crash, an OOM kill, an evicted or deleted pod",
		Example:   "{kind: pod-kill, target: busiest, at: 5s, min_streams: 2}",
		ask:       on(deploy.KillReplica, deploy.ReplicaKiller.KillReplica),
	},
	{
		FaultKind: scenarios.PodHang,
		Does:      "stops the process of one replica with SIGSTOP, for a time: it is there, its port accepts, and nothing is answered",
		Needs:     "a deployment of launchgate's own (target.local) on Linux; for",
		Seen:      "the kernel says that the process is stopped (state T), and a request to its port gets no answer in 300 ms; gone when it runs and the gateway routes to it",
		Simulates: "a deadlock, a GPU that does not return, a machine that swaps: what looks alive and is not",
		Example:   "{kind: pod-hang, target: busiest, at: 5s, for: 10s, min_streams: 1}",
		ask:       on(deploy.HangReplica, deploy.ReplicaHanger.HangReplica),
	},
	{
		FaultKind: scenarios.PodSlow,
		Does:      "leaves one replica only so many cores, by a quota of a control group",
		Needs:     "a deployment of launchgate's own (target.local), and control groups that can be made (Linux, root); for, cores",
		Seen:      "the kernel counts the time for which it kept the process from running; gone when the process is out of the group and the gateway routes to it",
		Simulates: "a noisy neighbour, a thermal or a CPU limit: a replica that answers, late",
		Example:   "{kind: pod-slow, target: replica-0, at: 5s, for: 20s, cores: 0.2}",
		ask:       on(deploy.SlowReplica, deploy.ReplicaSlower.SlowReplica),
	},
	{
		FaultKind: scenarios.GatewayKill,
		Does:      "sends SIGKILL to the gateway, through which every request goes",
		Needs:     "a deployment of launchgate's own (target.local)",
		Seen:      "the process is gone and was ended by the signal; gone again when a new gateway routes to every replica that the old one did",
		Simulates: "the front door crashing: an ingress or load balancer without a twin",
		Example:   "{kind: gateway-kill, at: 5s}",
		ask:       on(deploy.KillGateway, deploy.GatewayKiller.KillGateway),
	},
	{
		FaultKind: scenarios.NodeLoss,
		Does:      "takes the link of a simulated node down, ends every process on it at once with SIGKILL, and keeps them from being started for a time (for), or until the load ends. Who was connected to them is not told. Where nodes have no network of their own, the processes alone go, and the kernel breaks their connections. With disk: lost it is the node that the gateway and its ledger are on too, and its disk is lost for good, as by ledger-loss",
		Needs:     "a deployment of launchgate's own (target.local); target.local.nodes says how many nodes there are, one for each replica by default; for its network to go too, network namespaces that can be made (Linux, root); for disk: lost, a gateway that is not plain",
		Seen:      "every process of the node is gone, and none is back at the end; a connection to it gets no answer; gone again when the gateway routes to new processes of all of them",
		Simulates: "a machine that loses its power, with all that its memory held, or that does not come back, with all that its disk held",
		Example:   "{kind: node-loss, target: random, at: 5s, for: 20s, disk: lost}",
		ask:       on(deploy.TakeNode, deploy.NodeTaker.TakeNode),
	},
	{
		FaultKind: scenarios.SpotPreemption,
		Does:      "sends SIGTERM to one replica, and SIGKILL when its notice is over; with for, its place stays empty so long",
		Needs:     "a deployment of launchgate's own (target.local); notice",
		Seen:      "the process is gone, by itself within the notice or by the signal after it; gone again when the gateway routes to a new process",
		Simulates: "a spot instance taken back by the cloud, which gives it thirty seconds or two minutes of notice",
		Example:   "{kind: spot-preemption, target: busiest, at: 5s, notice: 10s, for: 20s}",
		ask:       on(deploy.Preempt, deploy.Preempter.Preempt),
	},
	{
		FaultKind: scenarios.DelayedNetwork,
		Does:      "adds a delay to every round trip between the gateway and one replica, half of it each way" + strikesNode,
		Needs:     fmt.Sprintf(needsNetwork, ", netem") + ", delay",
		Seen:      "a request on that way takes longer by the delay than before; gone when it does not any more",
		Simulates: "a replica in another zone or region, a congested path",
		Example:   "{kind: network-delay, target: replica-0, at: 5s, for: 20s, delay: 200ms}",
		ask:       on(deploy.ShapeNetwork, deploy.NetworkShaper.ShapeNetwork),
	},
	{
		FaultKind: scenarios.LossyNetwork,
		Does:      "loses a share of the packets between the gateway and one replica, each way; TCP sends them again, 200 ms later at least, and all behind them waits. The proxy plays what TCP makes of it" + strikesNode,
		Needs:     fmt.Sprintf(needsNetwork, ", netem") + ", loss",
		Seen:      "packets are counted as lost, and a request on that way took 200 ms longer than before; gone when none are lost and requests are quick again",
		Simulates: "a bad cable, an overloaded switch, wireless",
		Example:   "{kind: network-loss, target: replica-0, at: 5s, for: 20s, loss: 10%}",
		ask:       on(deploy.ShapeNetwork, deploy.NetworkShaper.ShapeNetwork),
	},
	{
		FaultKind: scenarios.NarrowNetwork,
		Does:      "lets only so many bytes a second through between the gateway and one replica, each way, all connections together" + strikesNode,
		Needs:     fmt.Sprintf(needsNetwork, ", tbf") + ", bandwidth",
		Seen:      "a request of known size takes as long as the bandwidth makes it; gone when it is quick again",
		Simulates: "a saturated link, a shaped or metered one",
		Example:   "{kind: network-bandwidth, target: replica-0, at: 5s, for: 20s, bandwidth: 64KiB}",
		ask:       on(deploy.ShapeNetwork, deploy.NetworkShaper.ShapeNetwork),
	},
	{
		FaultKind: scenarios.NodePartition,
		Does:      "cuts the network between the gateway and the node of one replica: silently, so that nothing arrives and nobody is told, or by resets (cut: reset), which a proxy plays. In front of a replica that a silent proxy cuts off, connections are still accepted",
		Needs:     fmt.Sprintf(needsNetwork, ""),
		Seen:      "a request made now gets no answer, or is refused, while the replica itself still answers beside it, or from within its node; gone when the gateway routes to it again",
		Simulates: "a partition: a failed switch, a wrong firewall rule, a node that only its own kind can still see",
		Example:   "{kind: node-partition, target: busiest, at: 5s, for: 20s, cut: silent}",
		ask:       on(deploy.ShapeNetwork, deploy.NetworkShaper.ShapeNetwork),
	},
	{
		FaultKind: scenarios.CPUStress,
		Does:      "burns so many cores of the machine in a process beside the service",
		Needs:     "a deployment of launchgate's own (target.local) on Linux, whose client then has less too; for, cores",
		Seen:      "the burning process was given processor time, as the kernel counts it; gone when the process is",
		Simulates: "a neighbour on the same node: a batch job, a backup, a scan",
		Example:   "{kind: cpu-stress, at: 5s, for: 20s, cores: 2}",
		ask:       on(deploy.BurnCores, deploy.CoreBurner.BurnCores),
	},
	{
		FaultKind: scenarios.MemoryPressure,
		Does:      "lets one replica take only so much more memory than it has, by a limit of a control group; past it the kernel's OOM killer ends the process",
		Needs:     "a deployment of launchgate's own (target.local), and control groups that can be made (Linux, root); for, memory",
		Seen:      "the kernel counts how often it had to refuse memory or free some first; gone when the limit is and the gateway routes to the replica",
		Simulates: "a memory limit that is too small, a leak, a node that runs out of memory",
		Example:   "{kind: memory-pressure, target: busiest, at: 5s, for: 20s, memory: 16MiB}",
		ask:       on(deploy.LimitMemory, deploy.MemoryLimiter.LimitMemory),
	},
	{
		FaultKind: scenarios.GPUOOM,
		Does:      "takes the memory of the device that the replicas share, all but a rest, in a process beside them. On the CPU that is the budget that they account for in a file, on a GPU its own memory",
		Needs:     "a deployment of launchgate's own (target.local) on Linux; for, memory (what is left to them)",
		Seen:      "the device says that no more than the rest is free, and how much less that is than before; gone when the process is and the memory is free again",
		Simulates: "another program on the same GPU, a leak of one, fragmentation: caches that cannot grow",
		Example:   "{kind: gpu-oom, at: 5s, for: 20s, memory: 1MiB}",
		ask:       on(deploy.FillDevice, deploy.DeviceFiller.FillDevice),
	},
	{
		FaultKind: scenarios.KVExhaustion,
		Does:      "fills the KV cache of one replica with contexts as long as its model allows, asked of it directly by a process beside the service, as many at once as it takes",
		Needs:     "a deployment of launchgate's own (target.local) on Linux, whose cache is small enough for the 32 sequences that run at once to fill it (target.local.kv_cache; 96MiB with the model that the server carries); for",
		Seen:      "the replica says that 90 % of its KV blocks are held; gone when the process is, fewer are held again and the gateway routes to the replica",
		Simulates: "users who bring whole documents, an agent that never forgets, a cache that is too small for its traffic",
		Example:   "{kind: kv-exhaustion, target: busiest, at: 5s, for: 20s}",
		ask:       on(deploy.FillCache, deploy.CacheFiller.FillCache),
	},
	{
		FaultKind: scenarios.CertificateExpiry,
		Does:      "swaps the gateway's certificate for one of the same authority that has expired, and back. Connections that are open stay open, and only who connects anew is refused: load over kept connections may notice nothing, so the probes of a scenario with this fault connect anew each time",
		Needs:     "a deployment of launchgate's own whose gateway is not plain (target.local); for",
		Seen:      "a client that verifies connects anew, and refuses the certificate because it has expired; gone when it accepts one again",
		Simulates: "a certificate that nobody renewed: a renewal job that has failed for weeks, and then it is midnight",
		Example:   "{kind: certificate-expiry, at: 5s, for: 10s}",
		ask:       on(deploy.ExpireCertificate, deploy.CertificateExpirer.ExpireCertificate),
	},
	{
		FaultKind: scenarios.LedgerLoss,
		Does:      "ends the gateway and what replicates its ledger with SIGKILL, and removes the ledger's files for good; with for, the disk stays away so long. The deployment then restores the ledger from its second place, or begins an empty one, with the same API keys, where there is none (target.local.gateway.unreplicated)",
		Needs:     "a deployment of launchgate's own whose gateway is not plain (target.local); durability in the scenario, for what is lost to be measured",
		Seen:      "both processes are gone, and so are the files; gone again when a ledger is there, and a new gateway routes to every replica that the old one did",
		Simulates: "the disk under the ledger lost at once: a failed volume, a node that does not come back",
		Example:   "{kind: ledger-loss, at: 5s, for: 2s}",
		ask:       on(deploy.LoseLedger, deploy.LedgerLoser.LoseLedger),
	},
	{
		FaultKind: scenarios.DiskFull,
		Does:      "takes all that is free on the disk of the gateway's ledger and its audit log, with a file. A gate with this fault has a small file system in memory for them, so that no disk of the machine is filled",
		Needs:     "a deployment of launchgate's own whose gateway is not plain (target.local), and a file system that can be mounted (Linux, root); for",
		Seen:      "nothing is free there, and the kernel refuses a write: no space left on device; gone when one is taken again",
		Simulates: "logs that nobody rotates, a volume that is too small, a neighbour on the same disk",
		Example:   "{kind: disk-full, at: 5s, for: 5s}",
		ask:       on(deploy.FillDisk, deploy.DiskFiller.FillDisk),
	},
	{
		FaultKind: scenarios.ClockSkew,
		Does:      "sets the wall clock of one replica wrong by a given time, forwards or backwards (skew: -90s), and nobody else's: the code by which the kernel has that process read the time is changed in its memory. What runs by the monotonic clock, as timeouts do, goes on as before",
		Needs:     "a deployment of launchgate's own (target.local) on Linux, amd64, whose kernel lets /proc/PID/mem be written; no root; for, skew",
		Seen:      "the Date of a health answer is off by the skew from our clock; gone when it is as it was before and the gateway routes to the replica",
		Simulates: "a machine without time synchronisation, a virtual machine that was suspended, a clock set by hand",
		Example:   "{kind: clock-skew, target: replica-0, at: 5s, for: 20s, skew: 90s}",
		ask:       on(deploy.SkewClock, deploy.ClockSkewer.SkewClock),
	},
	{
		FaultKind: scenarios.BadRelease,
		Does:      "rolls out a bad version as launchgate release does, and leaves it to the deployment to notice. release says what is bad: corrupt-model (a copy of the served model that breaks off half-way), erroring (the served model with a context so short that it refuses every prompt), slow (the served model with layers that add nothing, so that the same answers take three times as long or more) or bad-config (limits of the gateway that mean nothing)",
		Needs:     "a deployment of launchgate's own whose gateway is not plain (target.local); release; load, for the canary of an erroring or slow version to be judged on; a GGUF file, for a slow one",
		Seen:      "the canary runs the bad version, or the limits were refused; gone when it was rolled back without help, every replica has its command of before, and the gateway routes to all that it did. A version that is live, or not rolled back within within, is taken back by hand, and the fault fails",
		Simulates: "an upload that broke off, a version nobody tried, a typing error in a configuration, on a Friday",
		Example:   "{kind: bad-release, at: 5s, release: corrupt-model}",
		ask:       on(deploy.RollOutBad, deploy.BadReleaser.RollOutBad),
	},
}
