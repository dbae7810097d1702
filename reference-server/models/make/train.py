"""Trains the model on the tokens that prepare.py wrote.

    python train.py --data data/ --out model.npz --seconds 200

A Llama as GGUF's "llama" architecture means it: RMSNorm before each half,
rotary positions over neighbouring pairs, grouped KV heads, SwiGLU, and the
embedding used again to read the answer off.
"""

import argparse
import json
import math
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

SHAPE = dict(vocab=4096, dim=320, layers=8, heads=10, kv_heads=5, head_dim=32, ffn=896, context=1024, theta=10000.0, eps=1e-5)
UNTRAINED = 0x8000


def rotate(x, cos, sin):
    """Rotary positions: x (batch, heads, tokens, head_dim), neighbours make a pair."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)


class Block(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        d, q, kv = s["dim"], s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
        self.attn_norm, self.ffn_norm = nn.Parameter(torch.ones(d)), nn.Parameter(torch.ones(d))
        self.attn_q, self.attn_k, self.attn_v = (nn.Linear(d, n, bias=False) for n in (q, kv, kv))
        self.attn_output = nn.Linear(q, d, bias=False)
        self.ffn_gate, self.ffn_up = (nn.Linear(d, s["ffn"], bias=False) for _ in range(2))
        self.ffn_down = nn.Linear(s["ffn"], d, bias=False)

    def forward(self, x, cos, sin):
        s = self.s
        h = F.rms_norm(x, x.shape[-1:], self.attn_norm, s["eps"])
        q, k, v = (f(h).unflatten(-1, (-1, s["head_dim"])).transpose(1, 2) for f in (self.attn_q, self.attn_k, self.attn_v))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.attn_output(o.transpose(1, 2).flatten(2))
        h = F.rms_norm(x, x.shape[-1:], self.ffn_norm, s["eps"])
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Llama(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.token_embd = nn.Embedding(s["vocab"], s["dim"])
        self.blk = nn.ModuleList(Block(s) for _ in range(s["layers"]))
        self.output_norm = nn.Parameter(torch.ones(s["dim"]))
        self.eps = s["eps"]
        freq = s["theta"] ** (-torch.arange(0, s["head_dim"], 2, dtype=torch.float64) / s["head_dim"])
        ang = torch.arange(s["context"])[:, None] * freq
        self.register_buffer("cos", ang.cos().float(), persistent=False)
        self.register_buffer("sin", ang.sin().float(), persistent=False)
        for n, p in self.named_parameters():
            if p.dim() == 2:
                scale = 1 / math.sqrt(2 * s["layers"]) if n.endswith(("attn_output.weight", "ffn_down.weight")) else 1
                nn.init.normal_(p, std=0.02 * scale)

    def forward(self, ids):
        x = self.token_embd(ids)
        n = ids.shape[1]
        for b in self.blk:
            x = b(x, self.cos[:n], self.sin[:n])
        x = F.rms_norm(x, x.shape[-1:], self.output_norm, self.eps)
        return F.linear(x, self.token_embd.weight)

    def loss(self, rows):
        """Mean loss over the trained tokens of rows (batch, context+1)."""
        target = rows[:, 1:].long()
        target = torch.where(target >= UNTRAINED, -100, target)
        logits = self(rows[:, :-1].long() & (UNTRAINED - 1))
        return F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), ignore_index=-100)


def pack(path, width, seed):
    """Lays whole documents into rows; every row starts with the start of one,
    as every request does, and the last is cut where the row ends."""
    z = np.load(path)
    tokens, starts = z["tokens"], z["starts"]
    order = np.random.default_rng(seed).permutation(len(starts) - 1)
    rows, row, room = [], [], width
    for i in order:
        d = tokens[starts[i]:starts[i + 1]][:room]
        row.append(d)
        room -= len(d)
        if room == 0:
            rows.append(np.concatenate(row))
            row, room = [], width
    return torch.from_numpy(np.stack(rows).astype(np.int32))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--data", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--seconds", type=float, default=200, help="time to train, from which the steps follow")
    p.add_argument("--steps", type=int, default=0, help="steps instead of seconds")
    p.add_argument("--batch", type=int, default=128, help="rows of 1024 tokens")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = p.parse_args()
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    cuda = a.device == "cuda"
    rows = pack(f"{a.data}/train.npz", SHAPE["context"] + 1, a.seed).to(a.device)
    held = pack(f"{a.data}/held.npz", SHAPE["context"] + 1, a.seed)[:256].to(a.device)
    model = Llama(SHAPE).to(a.device)
    print(f"{sum(p.numel() for p in model.parameters())} weights, {len(rows)} rows to train on, {len(held)} held out", flush=True)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("blk.")]
    rest = [p for n, p in model.named_parameters() if not (p.dim() == 2 and n.startswith("blk."))]
    optims = [torch.optim.Muon(matrices, lr=a.lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
              torch.optim.AdamW(rest, lr=a.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=cuda)]
    loss_of = torch.compile(model.loss) if cuda else model.loss
    shuffled, at, epoch = None, 0, 0

    def batch():
        nonlocal shuffled, at, epoch
        if shuffled is None or at + a.batch > len(rows):
            g = torch.Generator().manual_seed(a.seed + epoch)
            shuffled, at, epoch = torch.randperm(len(rows), generator=g).to(a.device), 0, epoch + 1
        at += a.batch
        return rows[shuffled[at - a.batch:at]]

    def learn(x, lr):
        for o in optims:
            for g in o.param_groups:
                g["lr"] = lr
        with torch.autocast(a.device, torch.bfloat16):
            loss = loss_of(x)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optims:
            o.step()
            o.zero_grad(set_to_none=True)
        return loss.detach()

    def evaluate():
        with torch.no_grad(), torch.autocast(a.device, torch.bfloat16):
            return float(torch.stack([model.loss(x) for x in held.split(32)]).mean())

    def save(log):
        # Under the names that GGUF gives them.
        arrays = {n if n.endswith("weight") else n + ".weight": p.detach().float().cpu().numpy() for n, p in model.named_parameters()}
        np.savez(a.out, __log__=json.dumps(log), **arrays)

    # The schedule needs the number of steps: time some that change nothing.
    steps = a.steps
    if not steps:
        for i in range(13):
            if i == 3:
                began = float(learn(batch(), 0.0)) * 0 + time.time()
            learn(batch(), 0.0)
        float(learn(batch(), 0.0))
        steps = int((a.seconds - 3) / ((time.time() - began) / 11))
        shuffled, epoch = None, 0
    began, lines = time.time(), []
    for i in range(steps):
        warm = min(1.0, (i + 1) / 150)
        lr = a.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * i / steps)))
        loss = learn(batch(), lr)
        if i % 200 == 0 or i == steps - 1:
            lines.append(dict(step=i + 1, epoch=round(epoch - 1 + at / len(rows), 2), train=round(float(loss), 4), held=round(evaluate(), 4),
                              seconds=round(time.time() - began, 1), tokens=(i + 1) * a.batch * SHAPE["context"]))
            print(lines[-1], flush=True)
            if i and i % 1000 == 0:
                save(lines)
    save(lines)


if __name__ == "__main__":
    main()
