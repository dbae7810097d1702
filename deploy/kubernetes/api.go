package kubernetes

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/launchgate/launchgate/internal/words"
)

// manager is the field manager of the objects that launchgate applies.
const manager = "launchgate"

// The resources that the target reads directly.
var (
	podsGVR        = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	nodesGVR       = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	servicesGVR    = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	deploymentsGVR = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
)

// api is an API server, as one user of it.
type api struct {
	config  *rest.Config
	dynamic dynamic.Interface
	where   string // the context, for errors

	mu    sync.Mutex
	kinds map[schema.GroupVersionKind]kind
}

// kind identifies the resource of a kind of objects.
type kind struct {
	Resource   schema.GroupVersionResource
	Namespaced bool
}

// connect finds the API server as kubectl does: by KUBECONFIG or
// ~/.kube/config, with the named context or the current one. In a pod without
// such a file it uses the service account.
func connect(kubeconfig, context string) (*api, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	raw, err := rules.Load()
	if err != nil {
		return nil, words.Errorf("the kubeconfig cannot be read: %s", err)
	}
	where := context
	if where == "" {
		where = raw.CurrentContext
	}
	var config *rest.Config
	switch _, found := raw.Contexts[where]; {
	case found:
		config, err = clientcmd.NewNonInteractiveClientConfig(*raw, where, &clientcmd.ConfigOverrides{}, rules).ClientConfig()
	case context != "":
		return nil, words.Errorf("no context is named %q in the kubeconfig (%s); there are %s", context, strings.Join(rules.GetLoadingPrecedence(), ", "), contexts(raw))
	case os.Getenv("KUBERNETES_SERVICE_HOST") != "":
		where = "in-cluster"
		config, err = rest.InClusterConfig()
	default:
		return nil, words.Errorf("there is no cluster: the kubeconfig (%s) has no current context, and this is no pod; set KUBECONFIG, or target.kubernetes.context to one of %s", strings.Join(rules.GetLoadingPrecedence(), ", "), contexts(raw))
	}
	if err != nil {
		return nil, words.Errorf("the context %q of the kubeconfig: %s", where, err)
	}
	// Faults are timed, so requests must not wait for client-go's default rate
	// limit.
	config.QPS, config.Burst = 100, 200
	config.UserAgent = "launchgate"
	return newAPI(config, where)
}

func newAPI(config *rest.Config, where string) (*api, error) {
	d, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &api{config: config, dynamic: d, where: where, kinds: map[schema.GroupVersionKind]kind{}}, nil
}

func contexts(raw *clientcmdapi.Config) string {
	var names []string
	for name := range raw.Contexts {
		names = append(names, name)
	}
	if len(names) == 0 {
		return "none"
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// kubeconfigFile is the file with which another process finds the same cluster.
// It is an absolute path, or empty for the defaults.
func kubeconfigFile() string {
	file := os.Getenv(clientcmd.RecommendedConfigPathEnvVar)
	if file == "" || strings.ContainsRune(file, filepath.ListSeparator) {
		return ""
	}
	whole, err := filepath.Abs(file)
	if err != nil {
		return ""
	}
	return whole
}

// explain adds to an error of the API server what to do about it, if that is
// known.
func (a *api) explain(err error) error {
	var status apierrors.APIStatus
	var network net.Error
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota"):
		return words.Errorf("the quota of the namespace is full: %s", err)
	case apierrors.IsForbidden(err):
		return words.Errorf("the user of the context %q may not do that: %s; the rights that are used are in deploy/kubernetes/rights/role.yaml", a.where, err)
	case apierrors.IsUnauthorized(err):
		return words.Errorf("the cluster of the context %q does not know its user: %s; log in again", a.where, err)
	case errors.As(err, &status):
		return err
	case errors.As(err, &network):
		return words.Errorf("the API server of the context %q does not answer: %s", a.where, err)
	}
	return err
}

// find finds the resource of a kind.
func (a *api) find(ctx context.Context, k schema.GroupVersionKind) (kind, error) {
	a.mu.Lock()
	found, known := a.kinds[k]
	a.mu.Unlock()
	if known {
		return found, nil
	}
	path := "/apis/" + k.Group + "/" + k.Version
	if k.Group == "" {
		path = "/api/" + k.Version
	}
	var list metav1.APIResourceList
	if err := a.get(ctx, path, &list); err != nil && !apierrors.IsNotFound(err) { // a missing group has no kinds
		return kind{}, a.explain(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range list.APIResources {
		if !strings.Contains(r.Name, "/") {
			a.kinds[k.GroupVersion().WithKind(r.Kind)] = kind{k.GroupVersion().WithResource(r.Name), r.Namespaced}
		}
	}
	if found, known = a.kinds[k]; !known {
		return kind{}, words.Errorf("the cluster has no %s of %s: install what it belongs to, or take another overlay", k.Kind, k.GroupVersion())
	}
	return found, nil
}

// get reads the answer at a path of the API server.
func (a *api) get(ctx context.Context, path string, into any) error {
	transport, err := rest.HTTPClientFor(a.config)
	if err != nil {
		return err
	}
	base, err := url.Parse(a.config.Host)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath(path).String(), nil)
	if err != nil {
		return err
	}
	resp, err := transport.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var status metav1.Status
		if err := json.NewDecoder(resp.Body).Decode(&status); err == nil && status.Reason != "" {
			return &apierrors.StatusError{ErrStatus: status}
		}
		return apierrors.NewGenericServerResponse(resp.StatusCode, "get", schema.GroupResource{}, path, resp.Status, 0, true)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// client is the client for objects of the kind of o.
func (a *api) client(ctx context.Context, o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	k, err := a.find(ctx, o.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	return a.in(k, o.GetNamespace()), nil
}

// apply sets the fields of an object to those given here. Fields that others
// have set stay.
func (a *api) apply(ctx context.Context, o *unstructured.Unstructured) error {
	c, err := a.client(ctx, o)
	if err != nil {
		return err
	}
	b, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	_, err = c.Patch(ctx, o.GetName(), types.ApplyPatchType, b, metav1.PatchOptions{FieldManager: manager, Force: new(true)})
	if err != nil {
		return words.Errorf("apply %s: %s", named(o), a.explain(err))
	}
	return nil
}

// there reports whether an object exists.
func (a *api) there(ctx context.Context, o *unstructured.Unstructured) (bool, error) {
	c, err := a.client(ctx, o)
	if err != nil {
		return false, err
	}
	_, err = c.Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// remove deletes an object.
func (a *api) remove(ctx context.Context, o *unstructured.Unstructured) error {
	c, err := a.client(ctx, o)
	if err != nil {
		return err
	}
	if err := drop(ctx, c, o.GetName()); err != nil {
		return words.Errorf("remove %s: %s", named(o), a.explain(err))
	}
	return nil
}

// drop deletes an object with all objects that belong to it. It is no error if
// the object is gone.
func drop(ctx context.Context, c dynamic.ResourceInterface, name string) error {
	err := c.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func named(o *unstructured.Unstructured) string {
	name := strings.ToLower(o.GetKind()) + "/" + o.GetName()
	if o.GetNamespace() != "" {
		name += " in " + o.GetNamespace()
	}
	return name
}

// into decodes an object.
func into[T any](o *unstructured.Unstructured) (*T, error) {
	var v T
	b, err := o.MarshalJSON()
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("%s: %w", named(o), err)
	}
	return &v, nil
}

// sleep waits for d, or returns an error when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// newRun is the name of a run, which its objects have as a label.
func newRun() (string, error) {
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return "", err
	}
	return hex.EncodeToString(id), nil
}
