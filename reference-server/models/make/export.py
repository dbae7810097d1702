"""Writes model.npz and tokenizer.json as one GGUF file, matrices in Q8_0.

    python export.py --model model.npz --tokenizer data/tokenizer.json --out default.gguf
"""

import argparse
import json

import numpy as np

import gguf
from train import SHAPE

TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
NORMAL, CONTROL = 1, 3
MOSTLY_Q8_0 = 7


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--tokenizer", required=True)
    p.add_argument("--out", required=True)
    a = p.parse_args()
    weights = np.load(a.model)
    bpe = json.load(open(a.tokenizer))["model"]
    tokens = [t for t, _ in sorted(bpe["vocab"].items(), key=lambda kv: kv[1])]
    merges = [m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]]
    ids = bpe["vocab"]
    s = SHAPE
    meta = [
        ("general.architecture", STRING, "llama"),
        ("general.type", STRING, "model"),
        ("general.name", STRING, "launchgate-default"),
        ("general.size_label", STRING, "10M"),
        ("general.license", STRING, "apache-2.0"),
        ("general.languages", ARRAY, (STRING, ["en"])),
        ("general.file_type", U32, MOSTLY_Q8_0),
        ("general.quantization_version", U32, 2),
        ("llama.block_count", U32, s["layers"]),
        ("llama.context_length", U32, s["context"]),
        ("llama.embedding_length", U32, s["dim"]),
        ("llama.feed_forward_length", U32, s["ffn"]),
        ("llama.attention.head_count", U32, s["heads"]),
        ("llama.attention.head_count_kv", U32, s["kv_heads"]),
        ("llama.attention.key_length", U32, s["head_dim"]),
        ("llama.attention.value_length", U32, s["head_dim"]),
        ("llama.attention.layer_norm_rms_epsilon", F32, s["eps"]),
        ("llama.rope.dimension_count", U32, s["head_dim"]),
        ("llama.rope.freq_base", F32, s["theta"]),
        ("llama.vocab_size", U32, s["vocab"]),
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "gpt-2"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        ("tokenizer.ggml.token_type", ARRAY, (I32, [CONTROL if t.startswith("<|") and t.endswith("|>") else NORMAL for t in tokens])),
        ("tokenizer.ggml.merges", ARRAY, (STRING, merges)),
        ("tokenizer.ggml.bos_token_id", U32, ids["<|endoftext|>"]),
        ("tokenizer.ggml.eos_token_id", U32, ids["<|im_end|>"]),
        ("tokenizer.ggml.padding_token_id", U32, ids["<|endoftext|>"]),
        ("tokenizer.ggml.add_bos_token", BOOL, False),
        ("tokenizer.ggml.add_space_prefix", BOOL, False),
        ("tokenizer.chat_template", STRING, TEMPLATE),
    ]
    assert len(tokens) == s["vocab"], f"the tokenizer has {len(tokens)} tokens, the model {s['vocab']}"
    order = ["token_embd.weight"] + [f"blk.{i}.{n}.weight" for i in range(s["layers"]) for n in (
        "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")] + ["output_norm.weight"]
    # Training pairs neighbours in rotary positions, as this architecture does
    # in GGUF, so the rows of q and k already lie where they belong.
    gguf.write(a.out, meta, {n: weights[n] for n in order})


if __name__ == "__main__":
    main()
