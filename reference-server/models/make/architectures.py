"""Makes tiny models with random weights of every architecture the engine knows,
as Hugging Face folders, with what transformers computes for them.

    python architectures.py ../../engine/testdata/architectures

Needs torch, transformers and tokenizers from PyPI. The numbers are float64 on
the CPU; the weights are stored in the type each family uses.
"""

import json
import os
import sys

import torch
import transformers as T
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = ["Hello world", " a", "two  spaces", "It's we'll DON'T", "12345 3.14", "naïve 日本 🙂", "line\nbreak\n\n x", "\ttab", "", "a" * 20, "x=1;y=2", "Привет"]
PROMPTS = ["Once upon a time", "The sea is blue.", "12 and 34", "What do birds eat? They"]
CORPUS = ["Once upon a time there was a little dog who lived by the sea.", "What do birds eat? They eat seeds, 12 or 34 a day.",
          "The sky is blue; it's nice. We'll see, I'm sure.", "naïve 日本 🙂 Привет x=1;y=2", "The quick brown fox\njumps over\n\nthe lazy dog."] * 40
SPLITS = {
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def byte_level(kind, special):
    t = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    if kind == "smollm":
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    else:
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLITS[kind]), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=380, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    if kind == "llama3":
        bos = special[0]
        t.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, t.token_to_id(bos))])
    return t


def pieces():
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    ascii_corpus = [c.encode("ascii", "ignore").decode().replace(" ", "▁") for c in CORPUS]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.train_from_iterator(ascii_corpus, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False))
    j = json.loads(trained.to_str())
    t = json.loads(t.to_str())
    t["model"]["vocab"], t["model"]["merges"] = j["model"]["vocab"], j["model"]["merges"]
    t["added_tokens"] = [dict(a, special=True) for a in j["added_tokens"] if a["content"] in ("<unk>", "<s>", "</s>")]
    t = Tokenizer.from_str(json.dumps(t))
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return t


def main(out):
    llama3 = byte_level("llama3", ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    qwen = byte_level("qwen", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    smol = byte_level("smollm", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    spm = pieces()
    base = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512)
    scaling = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64, rope_theta=500000.0)
    cases = {
        "llama3": (T.LlamaConfig(**base, rope_theta=500000.0, rope_scaling=scaling, tie_word_embeddings=True), llama3, torch.bfloat16, None),
        "llama2": (T.LlamaConfig(**base, tie_word_embeddings=False), spm, torch.float16, None),
        "smollm2": (T.LlamaConfig(**base, rope_theta=100000.0, tie_word_embeddings=True), smol, torch.float32, "60KB"),
        "mistral": (T.MistralConfig(**base, sliding_window=256, tie_word_embeddings=False), spm, torch.bfloat16, None),
        "qwen2": (T.Qwen2Config(**base, rope_theta=1000000.0, tie_word_embeddings=True), qwen, torch.bfloat16, None),
        "qwen3": (T.Qwen3Config(**base, head_dim=32, rope_theta=1000000.0, tie_word_embeddings=False), qwen, torch.bfloat16, None),
    }
    for name, (cfg, tok, dtype, shard) in cases.items():
        torch.manual_seed(7)
        cfg.vocab_size = (tok.get_vocab_size() + 15) // 16 * 16
        model = T.AutoModelForCausalLM.from_config(cfg)
        with torch.no_grad():
            for n, p in model.named_parameters():
                # Wide enough that heads attend to something and answers differ.
                p.copy_(1 + 0.2 * torch.randn_like(p) if "norm" in n else torch.randn_like(p) * (0.3 if "bias" in n else 0.18))
        model = model.to(dtype)
        folder = os.path.join(out, name)
        model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
        for f in ("generation_config.json",):
            if os.path.exists(os.path.join(folder, f)):
                os.remove(os.path.join(folder, f))
        tok.save(os.path.join(folder, "tokenizer.json"), pretty=False)
        bos, eos = {"llama3": ("<|begin_of_text|>", "<|eot_id|>"), "llama2": ("<s>", "</s>"), "mistral": ("<s>", "</s>")}.get(name, (None, "<|im_end|>"))
        json.dump({"bos_token": bos, "eos_token": eos}, open(os.path.join(folder, "tokenizer_config.json"), "w"))
        # Loaded anew: the cast above has rounded the frequencies of RoPE too.
        model = T.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).double().eval()
        golden = {"made_by": "python architectures.py", "transformers": T.__version__, "tokens": [{"text": t, "ids": tok.encode(t).ids} for t in TEXTS], "cases": []}
        for p in PROMPTS:
            ids = tok.encode(p).ids
            greedy, margins = [], []
            with torch.no_grad():
                for step in range(32):
                    logits = model(torch.tensor([ids + greedy])).logits[0, -1]
                    if step == 0:
                        first = logits
                    top = torch.topk(logits, 2)
                    greedy.append(int(top.indices[0]))
                    margins.append(round(float(top.values[0] - top.values[1]), 5))
            top = torch.topk(first, 16)
            golden["cases"].append({"prompt": p, "ids": ids, "top": [[int(i), round(float(v), 5)] for i, v in zip(top.indices, top.values)],
                                    "logsumexp": round(float(torch.logsumexp(first, 0)), 5), "greedy": greedy, "margins": margins})
        json.dump(golden, open(os.path.join(folder, "golden.json"), "w"), ensure_ascii=False, separators=(",", ":"))
        print(name, sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder)), os.listdir(folder), flush=True)


main(sys.argv[1])
