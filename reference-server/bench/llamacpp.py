"""Times llama.cpp on a GGUF file: the same three numbers as BenchmarkSpeed.

    python llamacpp.py MODEL.gguf THREADS

Prints tokens per second for a prompt of 512 tokens, for one stream of answers
and for 16 streams decoded together (llama_batch, one token of each in a step:
the fastest way llama.cpp has). Needs llama-cpp-python from PyPI.
"""

import ctypes
import sys
import time

import llama_cpp as L


def main(path, threads):
    L.llama_backend_init()
    quiet = L.llama_log_callback(lambda level, text, data: None)
    L.llama_log_set(quiet, ctypes.c_void_p())
    model = L.llama_model_load_from_file(path.encode(), L.llama_model_default_params())
    p = L.llama_context_default_params()
    p.n_ctx, p.n_batch, p.n_ubatch, p.n_seq_max = 16 * 1024, 512, 512, 16
    p.n_threads = p.n_threads_batch = threads
    if hasattr(p, "kv_unified"):
        p.kv_unified = True
    ctx = L.llama_init_from_model(model, p)
    batch = L.llama_batch_init(512, 0, 1)
    ids = [(i * 37) % 4000 + 3 for i in range(512)]

    def step(tokens, last_only):
        """tokens: (id, position, sequence)"""
        batch.n_tokens = len(tokens)
        for i, (t, pos, seq) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = t, pos, 1, seq
            batch.logits[i] = (not last_only) or i == len(tokens) - 1
        if L.llama_decode(ctx, batch) != 0:
            raise SystemExit("llama_decode failed")
        L.llama_synchronize(ctx)

    def clear():
        L.llama_memory_clear(L.llama_get_memory(ctx), True)

    def prefill():
        clear()
        began = time.perf_counter()
        step([(t, i, 0) for i, t in enumerate(ids)], True)
        return 512 / (time.perf_counter() - began)

    def decode(streams, n):
        clear()
        for s in range(streams):
            step([(ids[i], i, s) for i in range(8)], True)
        began = time.perf_counter()
        for i in range(n):
            step([(ids[(8 + i) % 512], 8 + i, s) for s in range(streams)], False)
        return streams * n / (time.perf_counter() - began)

    prefill()
    print("prefill512 %.1f decode1 %.1f decode16 %.1f" % (
        max(prefill() for _ in range(3)), max(decode(1, 128) for _ in range(3)), max(decode(16, 64) for _ in range(3))))


main(sys.argv[1], int(sys.argv[2]))
