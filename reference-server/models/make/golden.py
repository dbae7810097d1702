"""Writes the numbers that the server's tests compare with.

    python golden.py --model ../default/default.gguf --eval ../default/eval.txt --out ../default/golden.json

The reference is a plain NumPy forward pass in float64 on the dequantized
weights. llama.cpp (by llama-cpp-python, one thread) is the second opinion; it
rounds activations to eight bits and keeps K and V in float16, so it differs.
"""

import argparse
import hashlib
import json
import sys

import llama_cpp
import numpy as np

import gguf

STEPS, TOP, WINDOW = 128, 32, 512
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
TALK = CHAT.format("Hello!") + "Hello! How can I help you today?<|im_end|>\n" + CHAT.format("Tell me about the sea.")
SYSTEM = "<|im_start|>system\nAnswer in simple words.<|im_end|>\n"

STRINGS = ["Hello world", " leading space", "trailing space ", "two  spaces   three", "", " ", "\n", "line\nbreak\n\nparagraph", "tab\there",
           "It's we'll they've I'm you'd can't", "IT'S LOUD", "1234567890", "3.14 and 1,000", "x=1;y=(2+3)*4", "naïve café", "Ünïcödé ß",
           "日本語のテキスト", "Привет, мир", "🙂", "👩‍👩‍👧 family", "a\u00a0b", "\u200bzero", "e\u0301", "mixed 日本 and 🙂!", "end...   \n  next",
           "https://example.org/a?b=c", "<|im_start|> as text", "\r\nwindows", "   \n\n   x"]
SPECIAL = ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<|endoftext|>", "a<|im_end|>b", " <|im_end|> ", TALK]


class Reference:
    def __init__(self, path):
        m, t = gguf.read(path)
        self.w = {n: x.astype(np.float64) for n, x in t.items()}
        self.layers, self.heads, self.kv_heads = (m["llama." + k] for k in ("block_count", "attention.head_count", "attention.head_count_kv"))
        self.d, self.eps = m["llama.rope.dimension_count"], m["llama.attention.layer_norm_rms_epsilon"]
        self.freq = m["llama.rope.freq_base"] ** (-np.arange(0, self.d, 2) / self.d)
        self.clear()

    def clear(self):
        self.k = [np.zeros((0, self.kv_heads, self.d)) for _ in range(self.layers)]
        self.v = list(self.k)

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.w[name]

    def rotate(self, x, pos):
        c, s = np.cos(pos[:, None] * self.freq)[:, None], np.sin(pos[:, None] * self.freq)[:, None]
        a, b = x[..., 0::2], x[..., 1::2]
        return np.stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)

    def forward(self, ids):
        """Logits (tokens, vocabulary) of ids, which follow what came before."""
        x, had = self.w["token_embd.weight"][ids], len(self.k[0])
        pos = np.arange(had, had + len(ids))
        hidden = np.arange(had + len(ids))[None] > pos[:, None]
        for i in range(self.layers):
            p = f"blk.{i}."
            h = self.norm(x, p + "attn_norm.weight")
            q, k, v = ((h @ self.w[p + f"attn_{n}.weight"].T).reshape(len(ids), -1, self.d) for n in "qkv")
            self.k[i] = np.concatenate([self.k[i], self.rotate(k, pos)])
            self.v[i] = np.concatenate([self.v[i], v])
            k, v = (np.repeat(c, self.heads // self.kv_heads, 1) for c in (self.k[i], self.v[i]))
            a = np.einsum("qhd,khd->hqk", self.rotate(q, pos), k) / np.sqrt(self.d)
            a = np.exp(np.where(hidden, -np.inf, a - np.where(hidden, -np.inf, a).max(-1, keepdims=True)))
            o = np.einsum("hqk,khd->qhd", a / a.sum(-1, keepdims=True), v)
            x = x + o.reshape(len(ids), -1) @ self.w[p + "attn_output.weight"].T
            h = self.norm(x, p + "ffn_norm.weight")
            g = h @ self.w[p + "ffn_gate.weight"].T
            x = x + (g / (1 + np.exp(-g)) * (h @ self.w[p + "ffn_up.weight"].T)) @ self.w[p + "ffn_down.weight"].T
        return self.norm(x, "output_norm.weight") @ self.w["token_embd.weight"].T


class LlamaCpp:
    def __init__(self, path):
        self.m = llama_cpp.Llama(path, n_ctx=1024, n_batch=1024, n_threads=1, n_threads_batch=1, n_gpu_layers=0, logits_all=True, verbose=False)

    def tokens(self, text, special):
        return self.m.tokenize(text.encode(), add_bos=False, special=special)

    def clear(self):
        self.m.reset()

    def forward(self, ids):
        had = self.m.n_tokens
        self.m.eval(list(map(int, ids)))
        return self.m.scores[had:self.m.n_tokens].astype(np.float64)


def logsumexp(x):
    top = x.max(-1)
    return top + np.log(np.exp(x - top[..., None]).sum(-1))


def greedy(model, ids):
    """Returns the last logits of the prompt, 128 tokens, and by how much each won."""
    model.clear()
    first = last = model.forward(ids)[-1]
    out, margins = [], []
    for _ in range(STEPS):
        second, best = np.sort(last)[-2:]
        out.append(int(last.argmax()))
        margins.append(round(float(best - second), 5))
        last = model.forward(out[-1:])[-1]
    return first, out, margins


def mean_nll(model, ids):
    """Mean loss over windows of 512 that each start from nothing."""
    total, count = 0.0, 0
    for i in range(0, len(ids), WINDOW):
        w = ids[i:i + WINDOW]
        if len(w) < 2:
            break
        model.clear()
        x = model.forward(w)[:-1]
        total += float((logsumexp(x) - x[np.arange(len(x)), w[1:]]).sum())
        count += len(x)
    return total / count, count


def prompts(eval_text):
    at = lambda start, n: eval_text[start:start + n]
    return (["Once upon a time, there was", "The sun is warm and the sky", "Bread is made from flour and", "A little fox and a big bear", "1, 2, 3, 4,"]
            + [at(0, 120), at(2000, 300), at(5000, 500), at(9000, 650), at(14000, 750)]
            + [CHAT.format(q) for q in ("Hi!", "Tell me a short story.", "Why is the sky blue?", "How do I make a cup of tea?",
                                        "What should I do when I feel angry?", "Describe a big old house at the end of a quiet street.")]
            + [SYSTEM + CHAT.format("What do birds eat?"), TALK, SYSTEM + TALK, CHAT.format(at(20000, 600) + " What happens next?")])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--eval", required=True)
    p.add_argument("--out", required=True)
    a = p.parse_args()
    ref, cpp = Reference(a.model), LlamaCpp(a.model)
    text = open(a.eval).read()
    cases = []
    for prompt in prompts(text):
        ids = cpp.tokens(prompt, special=True)
        first, out, margins = greedy(ref, np.array(ids))
        other, theirs, _ = greedy(cpp, ids)
        top = np.argsort(-first, kind="stable")[:TOP]
        cases.append(dict(prompt=prompt, ids=ids, top=[[int(i), round(float(first[i]), 6)] for i in top], logsumexp=round(float(logsumexp(first)), 6),
                          greedy=out, margins=margins, llamacpp_greedy=theirs, llamacpp_max_logit_diff=round(float(np.abs(first - other).max()), 5)))
        same = next((i for i, (x, y) in enumerate(zip(out, theirs)) if x != y), STEPS)
        print(f"{len(ids):4} tokens; llama.cpp goes along for {same} of {STEPS}, margin there {margins[same] if same < STEPS else None}; "
              f"logits differ by {cases[-1]['llamacpp_max_logit_diff']} at most", flush=True)
    ids = cpp.tokens(text, special=False)
    nll, count = mean_nll(ref, np.array(ids))
    theirs, _ = mean_nll(cpp, ids)
    print(f"eval: {len(ids)} tokens, loss {nll:.5f}, llama.cpp {theirs:.5f}; perplexity {np.exp(nll):.4f} and {np.exp(theirs):.4f}")
    golden = dict(
        made_by="python " + " ".join(sys.argv), llama_cpp_python=llama_cpp.__version__,
        model_sha256=hashlib.sha256(open(a.model, "rb").read()).hexdigest(),
        cases=cases,
        eval=dict(file_sha256=hashlib.sha256(text.encode()).hexdigest(), tokens=len(ids), ids_head=ids[:64], window=WINDOW, scored=count,
                  mean_nll=round(nll, 6), llamacpp_mean_nll=round(theirs, 6)),
        tokenizer=[dict(text=s, special=sp, ids=cpp.tokens(s, sp)) for sp, ss in ((False, STRINGS), (True, SPECIAL)) for s in ss])
    with open(a.out, "w") as f:  # one line a case
        f.write("{\n" + ",\n".join(f"{json.dumps(k)}: " + ("[\n" + ",\n".join(json.dumps(c) for c in v) + "\n]" if isinstance(v, list) else json.dumps(v))
                                   for k, v in golden.items()) + "\n}\n")


if __name__ == "__main__":
    main()
