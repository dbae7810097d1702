"""Writes a GGUF file of a real shape with random weights, for llama.cpp on a GPU.

    python3 gguf_shape.py 1.2B bf16 m.gguf   # or 8B, q8_0; needs gguf, torch and a GPU
"""
import sys

import gguf
import numpy as np
import torch

SHAPES = {"1.2B": (2048, 16, 64, 8192, True), "8B": (4096, 32, 128, 14336, False)}
HEADS, KV, VOCABULARY = 32, 8, 128256
name, kind, path = sys.argv[1:4]
width, layers, dim, ffn, tied = SHAPES[name]
file = gguf.GGUFWriter(path, "llama")
file.add_context_length(4096)
file.add_embedding_length(width)
file.add_block_count(layers)
file.add_feed_forward_length(ffn)
file.add_head_count(HEADS)
file.add_head_count_kv(KV)
file.add_layer_norm_rms_eps(1e-5)
file.add_rope_freq_base(500000.0)
file.add_rope_dimension_count(dim)
file.add_vocab_size(VOCABULARY)
file.add_tokenizer_model("no_vocab")


def matrix(name, rows, cols):
    x = torch.randn(rows, cols, device="cuda") / cols**0.5
    if kind == "bf16":
        raw, size, dtype = x.bfloat16().view(torch.int16), 2 * cols, gguf.GGMLQuantizationType.BF16
    else:
        x = x.view(-1, 32)
        scale = x.abs().amax(1, keepdim=True) / 127
        raw = torch.cat([scale.half().view(torch.int8).view(-1, 2), (x / scale).round().to(torch.int8)], 1)
        size, dtype = cols // 32 * 34, gguf.GGMLQuantizationType.Q8_0
    file.add_tensor(name, raw.cpu().numpy().view(np.uint8).reshape(rows, size), raw_dtype=dtype)


def ones(name):
    file.add_tensor(name, np.ones(width, dtype=np.float32))


matrix("token_embd.weight", VOCABULARY, width)
ones("output_norm.weight")
if not tied:
    matrix("output.weight", VOCABULARY, width)
for i in range(layers):
    p = f"blk.{i}."
    ones(p + "attn_norm.weight")
    ones(p + "ffn_norm.weight")
    for part, rows, cols in (("attn_q", HEADS * dim, width), ("attn_k", KV * dim, width), ("attn_v", KV * dim, width), ("attn_output", width, HEADS * dim),
                             ("ffn_gate", ffn, width), ("ffn_up", ffn, width), ("ffn_down", width, ffn)):
        matrix(f"{p}{part}.weight", rows, cols)
file.write_header_to_file()
file.write_kv_data_to_file()
file.write_tensors_to_file()
file.close()
