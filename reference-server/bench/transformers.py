"""Writes a model of a real shape with random weights, and measures transformers on it.

    python3 transformers.py 1.2B FOLDER TOKENIZER_FOLDER [measure]   # or 8B

FOLDER is what the reference server is given too. With measure: tokens per second
of generate for one stream, and of continuous batching for 256 requests of 64 to
256 tokens in and 128 out.
"""
import json, os, random, shutil, sys, time

sys.path.pop(0)  # this file is called transformers too
import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

SHAPES = {
    "1.2B": dict(hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, intermediate_size=8192, tie_word_embeddings=True),
    "8B": dict(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, intermediate_size=14336, tie_word_embeddings=False),
}
name, folder, tokenizer = sys.argv[1:4]
torch.manual_seed(0)
torch.set_default_dtype(torch.bfloat16)
config = LlamaConfig(**SHAPES[name], vocab_size=128256, max_position_embeddings=4096, rope_theta=500000.0, bos_token_id=1, eos_token_id=2, dtype="bfloat16")
with torch.device("cuda"):
    model = LlamaForCausalLM(config)
model.eval()
if not os.path.exists(os.path.join(folder, "config.json")):
    model.save_pretrained(folder)
    shutil.copy(os.path.join(tokenizer, "tokenizer_config.json"), folder)
    with open(os.path.join(tokenizer, "tokenizer.json")) as f:
        tokens = json.load(f)
    known = tokens["model"]["vocab"]
    taken = set(known.values()) | {t["id"] for t in tokens["added_tokens"]}
    known.update({f"\u0120word{i}": i for i in range(config.vocab_size) if i not in taken})  # every id has a text, so that every token is sent
    with open(os.path.join(folder, "tokenizer.json"), "w") as f:
        json.dump(tokens, f)
if sys.argv[4:] == ["measure"]:
    ids = torch.randint(3, 128000, (1, 128), device="cuda")
    for n in (16, 128):  # the first warms up
        torch.cuda.synchronize(); began = time.time()
        model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n, min_new_tokens=n, pad_token_id=0)
        torch.cuda.synchronize(); took = time.time() - began
    print(f"transformers {transformers.__version__} {name} generate, one stream: {128 / took:.1f} tokens/s", flush=True)
    random.seed(0)
    prompts = [[random.randrange(3, 128000) for _ in range(random.randint(64, 256))] for _ in range(256)]
    for few, n in ((16, 16), (256, 128)):
        settings = GenerationConfig(max_new_tokens=n, do_sample=False, eos_token_id=-1, pad_token_id=0, use_cuda_graph=False)
        torch.cuda.synchronize(); began = time.time()
        answers = model.generate_batch(inputs=prompts[:few], generation_config=settings, progress_bar=False)
        torch.cuda.synchronize(); took = time.time() - began
    made = sum(len(a.generated_tokens) for a in answers.values())
    print(f"transformers {transformers.__version__} {name} continuous batching, 256 requests: {made / took:.0f} tokens/s ({made} tokens)", flush=True)
