package main

import (
	"encoding/json"
	"io"
	"math"
	"os"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/reference-server/device"
	"github.com/launchgate/launchgate/reference-server/engine"
)

// need is what a server needs of its device, in bytes.
type need struct {
	engine.Need
	// Host is the memory that servers share on the CPU.
	Host int64 `json:"host"`
}

// needCommand is for those who plan servers: it says what one would need before it is
// started.
func needCommand(out io.Writer) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "need",
		Short: "Print how much memory of its device a server needs, in bytes",
		Long: `need prints, in JSON, the bytes of a device that serve needs with the same flags: for
the weights, for the working memory of a step, and for the keys and values (KV cache) of
one sequence of the greatest length. Of several models it is the largest: serve loads
the others when it has room. host is the memory that servers share on the CPU.`,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			index, named, err := parseDevice(o.device)
			if err != nil {
				return err
			}
			onGPU := index >= 0 && named
			if onGPU {
				o.gpuDefaults(cmd.Flags().Changed)
			}
			if err := o.check(); err != nil {
				return err
			}
			configs, err := o.configs()
			if err != nil {
				return err
			}
			most := need{Host: o.deviceMiB << 20}
			for _, c := range configs {
				n, err := engine.NeedOf(c, onGPU)
				if err != nil {
					return err
				}
				if n.Sum() > most.Sum() {
					most.Need = n
				}
			}
			return json.NewEncoder(out).Encode(most)
		},
	}
	o.modelFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.device, "device", "cpu", "the compute device: cpu or cuda:N, which need not be there")
	f.StringVar(&o.deviceFile, "device-file", device.DefaultPath(), "as for serve")
	f.Int64Var(&o.deviceMiB, "device-memory-mib", defaultMiB(os.DirFS("/")), "as for serve")
	o.fraction = engine.DefaultFraction
	return cmd
}

// gpuDefaults are the defaults of serve on a GPU.
func (o *serveOptions) gpuDefaults(changed func(flag string) bool) {
	for _, d := range []struct {
		flag, variable string
		v              *int
		n              int
	}{{"max-batch-size", "MAX_BATCH_SIZE", &o.engine.MaxBatch, gpuBatch}, {"max-step-tokens", "", &o.engine.MaxTokens, gpuStep}, {"max-queue", "", &o.engine.MaxQueue, gpuQueue}} {
		if !changed(d.flag) && environment(d.variable, "") == "" {
			*d.v = d.n
		}
	}
	if !changed("kv-cache-mib") {
		o.kvMiB = math.MaxInt64 >> 20 // all that the fraction leaves
	}
}

// modelFlags are the flags that say what is served, and with how much memory.
func (o *serveOptions) modelFlags(cmd *cobra.Command) {
	var paths []string
	if path := environment("MODEL_PATH", ""); path != "" {
		paths = []string{path}
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.models, "model", paths, "a GGUF file or Hugging Face folder, as `[NAME=]PATH[,QUANTIZATION]`; may be repeated (default: the small built-in model)")
	f.StringVar(&o.loadFormat, "load-format", loadAuto, "where weights come from: auto (the model's files), or dummy (random weights of a shape, made on the device: --model is then a name such as llama-70b, a config.json, or a folder with one)")
	f.StringVar(&o.name, "model-name", environment("MODEL_NAME", ""), "the name of a single model in the API (default: from its file)")
	f.StringVar(&o.engine.Quantization, "quantization", engine.DefaultQuantization, "the quantization of weights: none, fp16 or int8")
	f.IntVar(&o.engine.MaxBatch, "max-batch-size", number("MAX_BATCH_SIZE", engine.DefaultMaxBatch), "the most sequences in a batch")
	f.IntVar(&o.engine.MaxTokens, "max-step-tokens", engine.DefaultMaxTokens, "the most tokens in a step: a larger number computes prompts faster, a smaller one delays other streams less")
	f.IntVar(&o.engine.MaxSequence, "max-sequence-length", number("MAX_SEQUENCE_LENGTH", engine.DefaultMaxSequence), "the most tokens of a prompt and its answer; the model's context is the upper limit")
	f.IntVar(&o.engine.MaxQueue, "max-queue", engine.DefaultMaxQueue, "the most waiting requests; further ones get 429")
	f.Int64Var(&o.kvMiB, "kv-cache-mib", engine.DefaultKVBytes>>20, "the most memory for a model's KV cache, in MiB (default on a GPU: what --gpu-memory-fraction leaves)")
	f.StringVar(&o.engine.KVCache, "kv-cache", engine.DefaultKVCache, "the type of the KV cache: auto (float32 on the CPU, 16 bits on a GPU) or int8, which holds about 4 times (CPU) or 2 times (GPU) as many tokens")
}
