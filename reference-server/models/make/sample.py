"""Samples the training text from the teacher.

    python sample.py --teacher SmolLM2-135M-Instruct.Q4_1.gguf --out corpus.jsonl --seconds 250

Every slot of a large batch is a conversation of its own, at a position of its
own. A step feeds each slot one token: the next one of the prompt (and of the
opening that the answer is given), or the one just drawn. A slot whose answer
ended takes the next prompt. All of that happens on the GPU inside one CUDA
graph, so the host only says "again".
"""

import argparse
import contextlib
import json
import time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import gguf
import prompts

SYSTEM = "You are a friendly storyteller and teacher. You write clear, simple English for young children."
PROMPT_ROOM = 112  # tokens: user turn and opening; longer ones are left out

try:
    import triton
    import triton.language as tl
except ImportError:  # no GPU: the slow path below does the same
    triton = None

if triton:
    @triton.jit
    def attend_kernel(q, k, v, o, pos, H: tl.constexpr, KVH: tl.constexpr, T: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr):
        """One program: the query heads of one slot that share one KV head."""
        b, h = tl.program_id(0), tl.program_id(1)
        G: tl.constexpr = H // KVH
        rows, d, t = tl.arange(0, 16), tl.arange(0, D), tl.arange(0, BLOCK)
        n = tl.load(pos + b) + 1
        q_at = q + (b * H + h * G + rows[:, None]) * D + d[None, :]
        qs = tl.load(q_at, mask=rows[:, None] < G, other=0.0)
        base = (b.to(tl.int64) * KVH + h) * T * D
        top = tl.full([16], -1e30, tl.float32)
        total = tl.zeros([16], tl.float32)
        acc = tl.zeros([16, D], tl.float32)
        for s in range(0, n, BLOCK):
            at = base + (s + t[:, None]) * D + d[None, :]
            live = s + t < n
            ks = tl.load(k + at, mask=live[:, None], other=0.0)
            sc = tl.dot(qs, tl.trans(ks)).to(tl.float32) * (D ** -0.5)
            sc = tl.where(live[None, :], sc, -1e30)
            new = tl.maximum(top, tl.max(sc, 1))
            p = tl.exp(sc - new[:, None])
            keep = tl.exp(top - new)
            vs = tl.load(v + at, mask=live[:, None], other=0.0)
            acc = acc * keep[:, None] + tl.dot(p.to(vs.dtype), vs)
            total = total * keep + tl.sum(p, 1)
            top = new
        o_at = o + (b * H + h * G + rows[:, None]) * D + d[None, :]
        tl.store(o_at, (acc / total[:, None]).to(o.dtype.element_ty), mask=rows[:, None] < G)

    @triton.jit
    def draw_kernel(logits, seen, out, step, V: tl.constexpr, BLOCK: tl.constexpr, inv_t, log_min_p, penalty):
        """One program: one row. Gumbel-max over the tokens that min-p leaves."""
        b = tl.program_id(0)
        seed = tl.load(step)
        i = tl.arange(0, BLOCK)
        row = b.to(tl.int64) * V
        top = tl.full([BLOCK], -1e30, tl.float32)
        for s in range(0, V, BLOCK):
            x = tl.load(logits + row + s + i, mask=s + i < V, other=-1e30).to(tl.float32)
            old = tl.load(seen + row + s + i, mask=s + i < V, other=0)
            x = tl.where(old != 0, tl.where(x > 0, x / penalty, x * penalty), x)
            top = tl.maximum(top, x)
        floor = tl.max(top, 0) + log_min_p / inv_t
        best = tl.full([BLOCK], -1e30, tl.float32)
        arg = tl.zeros([BLOCK], tl.int32)
        for s in range(0, V, BLOCK):
            x = tl.load(logits + row + s + i, mask=s + i < V, other=-1e30).to(tl.float32)
            old = tl.load(seen + row + s + i, mask=s + i < V, other=0)
            x = tl.where(old != 0, tl.where(x > 0, x / penalty, x * penalty), x)
            u = tl.maximum(tl.rand(seed, b * V + s + i), 1e-10)
            g = tl.where(x >= floor, x * inv_t - tl.log(-tl.log(u)), -1e30)
            arg = tl.where(g > best, s + i, arg)
            best = tl.maximum(best, g)
        win = tl.max(best, 0)
        tl.store(out + b, tl.max(tl.where(best == win, arg, 0), 0).to(tl.int64))


def attend_slow(q, k, v, pos):
    t = torch.arange(k.shape[2], device=q.device)
    bias = torch.where(t[None] <= pos[:, None], 0.0, -1e30).to(q.dtype)[:, None, None]
    b, h, d = q.shape
    return F.scaled_dot_product_attention(q.view(b, k.shape[1], -1, d), k, v, attn_mask=bias).reshape(b, h, d)


def draw_slow(logits, seen, a):
    x = logits.float()
    x = torch.where(seen != 0, torch.where(x > 0, x / a.penalty, x * a.penalty), x) / a.temperature
    x = x.masked_fill(x < x.max(-1, keepdim=True).values + np.log(a.min_p), -1e30)
    return (x - torch.empty_like(x).exponential_().log()).argmax(-1)


class Teacher:
    """The teacher's weights, a KV cache, and the state of every slot."""

    def __init__(self, a, meta, tensors, asked, system):
        dev, dt = a.device, torch.bfloat16 if a.device == "cuda" else torch.float32
        self.a, self.dev, self.fast = a, dev, a.device == "cuda"
        self.layers, self.heads, self.kv_heads = (meta["llama." + k] for k in ("block_count", "attention.head_count", "attention.head_count_kv"))
        self.eps = meta["llama.attention.layer_norm_rms_epsilon"]
        w = {n: torch.from_numpy(np.array(t)).to(dev, dt) for n, t in tensors.items()}
        self.emb, self.norm = w["token_embd.weight"], w["output_norm.weight"]
        self.w = []
        for i in range(self.layers):
            p = f"blk.{i}."
            self.w.append(dict(
                n1=w[p + "attn_norm.weight"], n2=w[p + "ffn_norm.weight"],
                qkv=torch.cat([w[p + f"attn_{x}.weight"] for x in "qkv"]), o=w[p + "attn_output.weight"],
                up=torch.cat([w[p + "ffn_gate.weight"], w[p + "ffn_up.weight"]]), down=w[p + "ffn_down.weight"]))
        self.d = d = self.emb.shape[1] // self.heads
        self.room = len(system) + PROMPT_ROOM + a.new
        freq = meta["llama.rope.freq_base"] ** (-torch.arange(0, d, 2, device=dev, dtype=torch.float64) / d)
        ang = torch.arange(self.room, device=dev)[:, None] * freq
        self.cos, self.sin = ang.cos().float(), ang.sin().float()
        B = a.batch
        self.k = torch.zeros(self.layers, B, self.kv_heads, self.room, d, device=dev, dtype=dt)
        self.v = torch.zeros_like(self.k)
        self.slots = torch.arange(B, device=dev)
        self.step_no = torch.zeros(1, dtype=torch.int64, device=dev) + a.seed
        self.seen = torch.zeros(B, self.emb.shape[0], dtype=torch.int8, device=dev)
        if self.fast:
            self.rope_store, self.swiglu = torch.compile(self.rope_store), torch.compile(self.swiglu)

        # The system turn lies in every slot's cache once and for all.
        for i, t in enumerate(system):
            self.forward(torch.full((B,), t, device=dev), torch.full((B,), i, device=dev))
        self.base = len(system)

        # Prompts: one row each, and a row of nonsense for slots that found none left.
        N = len(asked)
        self.count = N
        self.asked = torch.zeros(N + 1, PROMPT_ROOM, dtype=torch.int64)
        for i, ids in enumerate(asked):
            self.asked[i, :len(ids)] = torch.tensor(ids)
        self.asked = self.asked.to(dev)
        self.asked_len = torch.tensor([len(x) for x in asked] + [1], device=dev)
        self.out = torch.zeros(N + 1, a.new + 1, dtype=torch.int32, device=dev)
        self.out_len = torch.zeros(N + 1, dtype=torch.int32, device=dev)
        self.pid = self.slots.clamp(max=N)
        self.next = torch.full((1,), B, device=dev)
        self.pos = torch.full((B,), self.base, device=dev)
        self.tok = self.asked[self.pid, 0].clone()
        self.eos = meta["tokenizer.ggml.eos_token_id"]

    def rope_store(self, qkv, cos, sin, k, v, slots, pos):
        H, G, d = self.heads, self.kv_heads, self.d
        x = qkv.view(qkv.shape[0], H + 2 * G, d)
        r = x[:, :H + G].float().unflatten(-1, (-1, 2))  # GGUF keeps q and k so that pairs lie side by side
        c, s = cos[pos][:, None], sin[pos][:, None]
        r = torch.stack([r[..., 0] * c - r[..., 1] * s, r[..., 0] * s + r[..., 1] * c], -1).flatten(-2).to(x.dtype)
        k[slots, :, pos] = r[:, H:]
        v[slots, :, pos] = x[:, H + G:]
        return r[:, :H].contiguous()

    def swiglu(self, x):
        g, u = x.chunk(2, -1)
        return F.silu(g) * u

    def attend(self, q, k, v, pos):
        if not self.fast:
            return attend_slow(q, k, v, pos)
        o = torch.empty_like(q)
        attend_kernel[(q.shape[0], self.kv_heads)](q, k, v, o, pos, self.heads, self.kv_heads, self.room, self.d, 64, num_warps=2)
        return o

    def forward(self, tok, pos):
        x = self.emb[tok]
        for i, w in enumerate(self.w):
            h = F.rms_norm(x, x.shape[-1:], w["n1"], self.eps)
            q = self.rope_store(h @ w["qkv"].T, self.cos, self.sin, self.k[i], self.v[i], self.slots, pos)
            x = x + self.attend(q, self.k[i], self.v[i], pos).flatten(1) @ w["o"].T
            h = F.rms_norm(x, x.shape[-1:], w["n2"], self.eps)
            x = x + self.swiglu(h @ w["up"].T) @ w["down"].T
        return F.rms_norm(x, x.shape[-1:], self.norm, self.eps) @ self.emb.T

    def draw(self, logits):
        a = self.a
        if not self.fast:
            return draw_slow(logits, self.seen, a)
        out = torch.empty(logits.shape[0], dtype=torch.int64, device=self.dev)
        draw_kernel[(logits.shape[0],)](logits, self.seen, out, self.step_no, logits.shape[1], 2048,
                                        1 / a.temperature, float(np.log(a.min_p)), a.penalty, num_warps=8)
        return out

    def step(self):
        drawn = self.draw(self.forward(self.tok, self.pos))
        self.step_no += 1
        rel = self.pos - self.base + 1  # where the coming token lies in prompt and answer
        n = self.asked_len[self.pid]
        given = rel < n
        g = torch.where(given, self.a.new, rel - n)  # the last column takes what is not wanted
        self.out[self.pid, g] = drawn.int()
        done = ~given & ((drawn == self.eos) | (g == self.a.new - 1))
        self.out_len[torch.where(done, self.pid, self.count)] = torch.where(done, g + 1, 0).int()
        fresh = (self.next + done.cumsum(0) - 1).clamp(max=self.count)
        self.next += done.sum()
        self.pid.copy_(torch.where(done, fresh, self.pid))
        new_pos = torch.where(done, self.base, self.pos + 1)
        new_rel = new_pos - self.base
        forced = self.asked[self.pid, new_rel.clamp(max=PROMPT_ROOM - 1)]
        self.tok.copy_(torch.where(new_rel < self.asked_len[self.pid], forced, drawn))
        self.pos.copy_(new_pos)
        self.seen *= (~done[:, None]).to(torch.int8)
        self.seen[self.slots, drawn] |= (~given & ~done).to(torch.int8)

    def run(self):
        stream = torch.cuda.Stream() if self.fast else None
        with torch.cuda.stream(stream) if self.fast else contextlib.nullcontext():
            for _ in range(3):
                self.step()
        again = self.step
        if self.fast:
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.step()
            again = graph.replay
        began, steps = time.time(), 0
        while time.time() - began < self.a.seconds and int(self.next) < self.count + self.a.batch:
            for _ in range(50 if self.fast else 1):
                again()
                steps += 1
            if steps % 1000 < 50 and self.fast:
                took, told = time.time() - began, int(self.next)
                print(f"{took:.0f} s: {steps} steps, {steps * self.a.batch / took / 1e3:.0f}k tokens/s, {told} prompts taken", flush=True)


def teacher_tokenizer(meta):
    vocab = {t: i for i, t in enumerate(meta["tokenizer.ggml.tokens"])}
    tok = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]]))
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return tok


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--teacher", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--prompts", type=int, default=600_000)
    p.add_argument("--seconds", type=float, default=250)
    p.add_argument("--batch", type=int, default=4096)
    p.add_argument("--new", type=int, default=288, help="tokens of an answer at most")
    p.add_argument("--temperature", type=float, default=0.7)
    p.add_argument("--min-p", type=float, default=0.08)
    p.add_argument("--penalty", type=float, default=1.12, help="repetition penalty")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = p.parse_args()
    torch.manual_seed(a.seed)
    torch.set_grad_enabled(False)

    began = time.time()
    wanted = prompts.make(a.prompts, a.seed)
    meta, tensors = gguf.read(a.teacher)
    tok = teacher_tokenizer(meta)
    system = tok.encode(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n").ids
    asked = [e.ids for e in tok.encode_batch([f"{q}<|im_end|>\n<|im_start|>assistant\n{o}" for _, q, o in wanted])]
    keep = [i for i, x in enumerate(asked) if len(x) <= PROMPT_ROOM]
    wanted, asked = [wanted[i] for i in keep], [asked[i] for i in keep]
    print(f"{len(asked)} prompts, system turn of {len(system)} tokens, after {time.time() - began:.0f} s", flush=True)
    t = Teacher(a, meta, tensors, asked, system)
    print(f"teacher ready after {time.time() - began:.0f} s", flush=True)
    t.run()
    n = t.out_len.cpu().numpy()[:-1]
    ids = t.out.cpu().numpy()
    done = np.flatnonzero(n)
    print(f"{len(done)} answers, {n.sum() / 1e6:.1f}M tokens, {np.mean(n[done] == a.new):.3f} cut at {a.new}, after {time.time() - began:.0f} s", flush=True)
    texts = tok.decode_batch([ids[i, :n[i]].tolist() for i in done])
    with open(a.out, "w") as f:
        for i, text in zip(done, texts):
            kind, prompt, opening = wanted[i]
            ended = bool(ids[i, n[i] - 1] == t.eos)
            f.write(json.dumps({"kind": kind, "prompt": prompt, "answer": opening + text, "ended": ended}) + "\n")
    print(f"written after {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
