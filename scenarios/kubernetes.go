package scenarios

import (
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Kubernetes is a service on a Kubernetes cluster.
type Kubernetes struct {
	// Context of the kubeconfig; empty: the current one, or the service account of
	// the pod that launchgate runs in.
	Context string `yaml:"context,omitempty" json:"context,omitempty"`
	// Namespace that the service is in.
	Namespace string `yaml:"namespace,omitempty" json:"namespace,omitempty"`
	// Deploy is bundled where launchgate applies the manifests of the bundled service
	// for the run and removes them, or none for a service that is already there.
	Deploy string `yaml:"deploy,omitempty" json:"deploy,omitempty"`
	// Overlay is which manifests are applied: base, builtin-model, gpu, lab or
	// monitored, or a folder with a kustomization of your own, such as ./cluster.
	Overlay string `yaml:"overlay,omitempty" json:"overlay,omitempty"`
	// Selector finds the pods that serve, by their labels: app=vllm.
	Selector string `yaml:"selector,omitempty" json:"selector,omitempty"`
	// Service is the Service in front of them, with the name or number of its port
	// after a colon where it has several: vllm:http.
	Service string `yaml:"service,omitempty" json:"service,omitempty"`
	// Replicas is how many pods there are to be; 0 leaves it to the manifests.
	Replicas int `yaml:"replicas,omitempty" json:"replicas,omitempty"`
	// Access is how the load gets there: port-forward, in-cluster, or the URL of an
	// Ingress or a LoadBalancer.
	Access string `yaml:"access,omitempty" json:"access,omitempty"`
	// Model to ask for; empty asks for the first the service lists.
	Model string `yaml:"model,omitempty" json:"model,omitempty"`
	// APIKeyEnv names the environment variable that holds the API key.
	APIKeyEnv string `yaml:"api_key_env,omitempty" json:"api_key_env,omitempty"`
	// CAFile holds the certificate of the authority that signed the service's.
	CAFile string `yaml:"ca_file,omitempty" json:"ca_file,omitempty"`
	// Tokenizer is the tokenizer.json of the model, as of an endpoint.
	Tokenizer string `yaml:"tokenizer,omitempty" json:"tokenizer,omitempty"`
	// ReadyTimeout bounds the wait for every pod to be ready.
	ReadyTimeout Duration `yaml:"ready_timeout,omitempty" json:"ready_timeout,omitempty"`
	// Node says how a node is lost and comes back, for node-loss.
	Node *NodeCommands `yaml:"node,omitempty" json:"node,omitempty"`
}

// NodeCommands are run by sh, on the machine that launchgate runs on; $NODE is the
// name of the node.
type NodeCommands struct {
	// Stop ends the node as a loss of its power does.
	Stop string `yaml:"stop" json:"stop"`
	// Start has it come back. It may be run for a node that is there.
	Start string `yaml:"start" json:"start"`
}

// The words of target.kubernetes.
const (
	DeployBundled     = "bundled"
	DeployNone        = "none"
	AccessPortForward = "port-forward"
	AccessInCluster   = "in-cluster"
)

// What a target.kubernetes that leaves it out gets.
const (
	DefaultNamespace    = "ai-service"
	DefaultOverlay      = "base"
	DefaultSelector     = "app.kubernetes.io/name=inference-service"
	DefaultService      = "inference-service:http"
	DefaultClusterReady = Duration(3 * time.Minute)
)

func (k Kubernetes) resolved() Kubernetes {
	or(&k.Deploy, DeployBundled)
	or(&k.Access, AccessPortForward)
	or(&k.ReadyTimeout, DefaultClusterReady)
	if k.Deploy != DeployBundled {
		return k
	}
	or(&k.Namespace, DefaultNamespace)
	or(&k.Overlay, DefaultOverlay)
	or(&k.Selector, DefaultSelector)
	or(&k.Service, DefaultService)
	return k
}

// ServiceName is the name of the Service.
func (k Kubernetes) ServiceName() string {
	name, _, _ := strings.Cut(k.Service, ":")
	return name
}

// ServicePort is the name or number of its port; empty: its first.
func (k Kubernetes) ServicePort() string {
	_, port, _ := strings.Cut(k.Service, ":")
	return port
}

// OwnOverlay reports whether the overlay is a folder, and none that is built in.
func (k Kubernetes) OwnOverlay() bool { return strings.ContainsAny(k.Overlay, "/\\") }

// Host is what stop.hosts has to name for the target to be broken: the host of its
// URL, or else the context.
func (k Kubernetes) Host() string {
	if u, err := url.Parse(k.Access); err == nil && u.Host != "" {
		return u.Hostname()
	}
	return k.Context
}

var (
	clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)
	serviceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(:[a-z0-9-]{1,15})?$`)
	labelTerm   = `!?[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?(\s*(=|==|!=)\s*[A-Za-z0-9._-]*)?`
	selector    = regexp.MustCompile(`^\s*` + labelTerm + `(\s*,\s*` + labelTerm + `)*\s*$`)
)

// CheckKubernetes checks a target that no gate's file has.
func CheckKubernetes(k Kubernetes) error {
	var c checker
	c.kubernetes(Gate{Target: Target{Kubernetes: &k}})
	return c.problems.asError()
}

func (c *checker) kubernetes(g Gate) {
	k := *g.Target.Kubernetes
	const at = "target.kubernetes."
	c.word(at+"deploy", k.Deploy, DeployBundled, DeployNone)
	if k.Deploy == DeployNone {
		for _, needed := range []struct{ key, value, example string }{{"namespace", k.Namespace, "default"}, {"selector", k.Selector, "app=vllm"}} {
			if needed.value == "" {
				c.add(at+needed.key, "found none beside deploy: none, expected what finds the service, such as %s", needed.example)
			}
		}
		if k.Service == "" && !strings.Contains(k.Access, "://") {
			c.add(at+"service", "found none beside deploy: none, expected the Service in front of the pods, such as vllm:http, or a URL in access")
		}
		if k.Overlay != "" {
			c.add(at+"overlay", "found one beside deploy: none, which applies nothing; leave one of them out")
		}
	}
	if k.Namespace != "" && !clusterName.MatchString(k.Namespace) {
		c.add(at+"namespace", "found %s, expected the name of a namespace, such as %s", quoted(k.Namespace), DefaultNamespace)
	}
	if k.Selector != "" && !selector.MatchString(k.Selector) {
		c.add(at+"selector", "found %s, expected labels of pods, such as app=vllm,tier!=canary", quoted(k.Selector))
	}
	if k.Service != "" && !serviceName.MatchString(k.Service) {
		c.add(at+"service", "found %s, expected a Service and perhaps its port, such as vllm or vllm:http", quoted(k.Service))
	}
	c.between(at+"replicas", k.Replicas, 0, maxPods)
	if u, err := url.Parse(k.Access); strings.Contains(k.Access, ":") && (err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https") {
		c.add(at+"access", "found %s, expected %s, %s, or a URL such as https://ai.example.com", quoted(k.Access), AccessPortForward, AccessInCluster)
	} else if !strings.Contains(k.Access, ":") {
		c.word(at+"access", k.Access, AccessPortForward, AccessInCluster)
	}
	if k.APIKeyEnv != "" && !variableName.MatchString(k.APIKeyEnv) {
		c.add(at+"api_key_env", "expected the name of an environment variable, such as OPENAI_API_KEY, and not the key itself")
	}
	for key, text := range map[string]string{"context": k.Context, "overlay": k.Overlay, "model": k.Model, "ca_file": k.CAFile, "tokenizer": k.Tokenizer} {
		c.length(at+key, text, maxText)
	}
	c.lasts(at+"ready_timeout", k.ReadyTimeout, 1, maxTimeout)
	if n := k.Node; n != nil && (n.Stop == "" || n.Start == "") {
		c.add(at+"node", "found one of stop and start, expected both: a node that is lost has to come back")
	}
}

// maxPods is above any Deployment of one service.
const maxPods = 1000
