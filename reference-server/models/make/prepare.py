"""Cleans the sampled text, trains the tokenizer on it, and writes tokens.

    python prepare.py --corpus corpus.jsonl --out data/

writes tokenizer.json, train.npz and held.npz (tokens of whole documents, one
after the other, and where each starts), eval.txt (held-out plain text) and
sample.txt (some training documents, to look at).
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import time
import zlib

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB = 4096
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
UNTRAINED = 0x8000  # set on a token that the model need not learn to write

SYSTEMS = ["You are a helpful assistant.", "You are a friendly helper.", "Answer in simple words.", "You tell stories to children.",
           "Be kind and brief.", "You are a teacher."]
BANNED = re.compile(r"https?:|www\.|[$\\{}<>|=#_~^@]|SmolLM|Hugging|\bAI\b|language model|assistant", re.I)
PLAIN = {"’": "'", "‘": "'", "“": '"', "”": '"', "—": " - ", "–": "-", "…": "...", "é": "e", "**": "", "*": "", "\t": " "}


def clean(answer, ended):
    """Returns the answer in plain ASCII, or None where it is not worth learning."""
    for a, b in PLAIN.items():
        answer = answer.replace(a, b)
    answer = re.sub(r" *\n", "\n", re.sub(r" {2,}", " ", answer)).strip()
    answer = re.sub(r"\n{3,}", "\n\n", answer)
    if not ended:  # stopped by the length: keep whole sentences
        cut = max(answer.rfind(c) for c in (". ", "! ", "? ", '."', '!"', '?"', ".\n"))
        if cut < 60:
            return None
        answer = answer[:cut + 1 + (answer[cut + 1:cut + 2] == '"')]
    if len(answer) < 20 or not answer.isascii() or BANNED.search(answer) or loops(answer):
        return None
    return answer


def read(line):
    row = json.loads(line)
    return row["kind"], row["prompt"], clean(row["answer"], row["ended"])


def loops(text):
    """Whether a tenth of the runs of four words were there before."""
    w = text.lower().split()
    grams = [tuple(w[i:i + 4]) for i in range(len(w) - 3)]
    return len(grams) > 8 and 1 - len(set(grams)) / len(grams) > 0.10


def turns(pairs, system):
    parts = []
    if system:
        parts.append((f"{START}system\n{system}{STOP}\n", False))
    for i, (prompt, answer) in enumerate(pairs):
        parts += [(f"{START}user\n{prompt}{STOP}\n{START}assistant\n", False), (answer, True), (STOP, True), ("\n", False)]
    return parts + [(END, False)]


def documents(rows, r):
    """Yields documents as lists of (text, whether it is trained on)."""
    chat = []
    for kind, prompt, answer in rows:
        if r.random() < (0.35 if kind == "story" else 0.12):
            if answer.startswith("Here is a story"):
                answer = answer.split("\n\n", 1)[-1]
            yield [(answer, True), (END, True)]
        else:
            chat.append((prompt, answer))
    while chat:
        n = r.choices([1, 2, 3], [0.75, 0.17, 0.08])[0]
        yield turns(chat[-n:], r.choice(SYSTEMS) if r.random() < 0.35 else None)
        del chat[-n:]


def encode(tok, docs):
    special = {s: tok.token_to_id(s) for s in (END, START, STOP)}
    texts = sorted({t for d in docs for t, _ in d if t not in special})
    ids = dict(special)
    for i in range(0, len(texts), 20000):
        for t, e in zip(texts[i:i + 20000], tok.encode_batch_fast(texts[i:i + 20000])):
            ids[t] = np.array(e.ids, np.uint16)
    pieces, starts, at = [], [], 0
    for d in docs:
        starts.append(at)
        for t, trained in d:
            x = np.atleast_1d(np.array(ids[t], np.uint16)) | np.uint16(0 if trained else UNTRAINED)
            pieces.append(x)
            at += len(x)
    return np.concatenate(pieces), np.array(starts + [at], np.int64)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--corpus", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    r, began = random.Random(a.seed), time.time()
    os.makedirs(a.out, exist_ok=True)
    train, held, asked, seen = [], [], 0, set()
    with multiprocessing.Pool() as pool:
        for kind, prompt, answer in pool.imap(read, open(a.corpus), 1000):
            asked += 1
            if answer is None or answer in seen:
                continue
            seen.add(answer)
            # A held-out prompt is held out however often it was asked.
            away = zlib.crc32(prompt.encode()) % 100 == 0
            (held if away else train).append((kind, prompt, answer))
    print(f"{asked} answers: {len(train)} to train on, {len(held)} held out, after {time.time() - began:.0f} s", flush=True)

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # GPT-2's expression
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=[END, START, STOP], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    some = r.sample(train, min(len(train), 60000))
    tok.train_from_iterator((f"{q}\n{t}" for _, q, t in some), trainer)
    tok.save(f"{a.out}/tokenizer.json")
    print(f"tokenizer of {tok.get_vocab_size()} after {time.time() - began:.0f} s", flush=True)

    for name, rows in (("train", train), ("held", held)):
        r.shuffle(rows)
        docs = list(documents(rows, r))
        r.shuffle(docs)
        tokens, starts = encode(tok, docs)
        np.savez(f"{a.out}/{name}.npz", tokens=tokens, starts=starts)
        print(f"{name}: {len(docs)} documents, {len(tokens)} tokens, {np.mean(tokens < UNTRAINED):.3f} trained on, "
              f"after {time.time() - began:.0f} s", flush=True)
        if name == "train":
            open(f"{a.out}/sample.txt", "w").write("\n".join("".join(t for t, _ in d) for d in docs[:3000]))
    text = ""
    for kind, _, answer in held:
        if len(text) < 30000:
            text += answer + "\n\n"
    open(f"{a.out}/eval.txt", "w").write(text)


if __name__ == "__main__":
    main()
