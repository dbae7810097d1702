package api

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/launchgate/launchgate/reference-server/engine"
)

// TestPythonSDK uses the server with OpenAI's own Python SDK; see
// testdata/sdk.py.
func TestPythonSDK(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: it installs a Python package")
	}
	python, err := sdkPython()
	if err != nil {
		t.Skipf("skipped: OpenAI's Python SDK cannot be had: %v", err)
	}
	srv, _, e := serving(t, engine.Config{})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, python, "testdata/sdk.py", srv.URL, model).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "ok") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	for deadline := time.Now().Add(30 * time.Second); e.Stats().Running > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the stream that the SDK closed is still computed")
		}
	}
}

// sdkPython is a Python with the SDK, in an environment in the user's cache.
func sdkPython() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "launchgate", "openai-sdk-2")
	python := filepath.Join(dir, "bin", "python")
	if exec.Command(python, "-c", "import openai").Run() == nil {
		return python, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for _, argv := range [][]string{{"python3", "-m", "venv", dir}, {python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "openai>=2,<3"}} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return "", errors.New(strings.Join(argv, " ") + ": " + err.Error() + ": " + string(out))
		}
	}
	return python, nil
}

func TestGoSDK(t *testing.T) {
	srv, _, _ := serving(t, engine.Config{})
	c := openai.NewClient(option.WithBaseURL(srv.URL+"/v1/"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	params := openai.ChatCompletionNewParams{
		Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Tell me about the sea.")},
		MaxCompletionTokens: openai.Int(16), Temperature: openai.Float(0),
	}
	whole, err := c.Chat.Completions.New(ctx, params)
	if err != nil || whole.Usage.CompletionTokens != 16 || whole.Choices[0].FinishReason != "length" {
		t.Fatalf("%+v %v", whole, err)
	}
	params.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream := c.Chat.Completions.NewStreaming(ctx, params)
	var sum openai.ChatCompletionAccumulator
	for stream.Next() {
		if !sum.AddChunk(stream.Current()) {
			t.Fatal("the SDK cannot add the chunks up")
		}
	}
	if stream.Err() != nil || sum.Choices[0].Message.Content != whole.Choices[0].Message.Content || sum.Usage.CompletionTokens != 16 {
		t.Errorf("%+v %v", sum.Choices, stream.Err())
	}
	params.Model = "other"
	var failed *openai.Error
	if _, err := c.Chat.Completions.New(ctx, params); !errors.As(err, &failed) || failed.StatusCode != 404 || failed.Code != "model_not_found" {
		t.Errorf("%v", err)
	}
	models, err := c.Models.List(ctx)
	if err != nil || len(models.Data) != 1 || models.Data[0].ID != model {
		t.Errorf("%+v %v", models, err)
	}
}

// TestJavaScriptSDK does the same with the JavaScript SDK, if Node.js is
// installed.
func TestJavaScriptSDK(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: it installs a Node package")
	}
	dir, err := sdkNode()
	if err != nil {
		t.Skipf("skipped: OpenAI's JavaScript SDK cannot be had: %v", err)
	}
	srv, _, _ := serving(t, engine.Config{})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "testdata/sdk.mjs", srv.URL, model)
	cmd.Env = append(os.Environ(), "SDK_FROM="+dir)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "ok") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// sdkNode is a folder with the SDK, in the user's cache.
func sdkNode() (string, error) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", err
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "launchgate", "openai-node-6")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "openai", "package.json")); err == nil {
		return dir, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "npm", "install", "--silent", "--prefix", dir, "openai@6").CombinedOutput(); err != nil {
		return "", errors.New("npm install openai: " + err.Error() + ": " + string(out))
	}
	return dir, nil
}
