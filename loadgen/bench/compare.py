#!/usr/bin/env python3
"""Compares what clients cost: CPU time per request and per event.

Every client asks the same golden server in the same run, once for a little and
once for much; the difference is divided by the difference in requests, so that
starting up (imports, compilation, reports) counts for nobody. CPU time is user
and system of the client's processes, children included; the server's is not
counted. Clients that cannot be had are told as such.

    loadgen/bench/compare.py [--tools FOLDER]

makes FOLDER (kept between calls; by default in the user's cache folder, outside
of the repository) with a virtual environment of AIPerf and GuideLLM and with
k6; wrk is used where it is installed.
"""
import argparse
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPT = "Tell me a story about the sea, please, and make it short."
TOKENS = 64
# The Python clients are busy all the time with some 60 streams a second; ours
# mostly sleeps then, and pays for waking up, so it is measured busy as well.
RATE, STREAM_RATE, BUSY_RATE, CONCURRENCY = 1000, 60, 300, 50
AIPERF, GUIDELLM, K6 = "0.13.0", "0.8.1", "v1.3.0"


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--tools", type=pathlib.Path, default=pathlib.Path.home() / ".cache" / "launchgate-bench")
    args.add_argument("--rounds", type=int, default=3)
    opts = args.parse_args()
    tools = Tools(opts.tools)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        subprocess.run(["go", "build", "-o", f"{work}/", "./cmd/launchgate", "./loadgen/golden", "./loadgen/bench/raw"], cwd=ROOT, check=True)
        golden = subprocess.Popen([work / "golden", "-first", "20ms", "-every", "10ms"], stdout=subprocess.PIPE, text=True)
        try:
            url = golden.stdout.readline().strip()
            c = Clients(work, url, tools)
            table("Without streaming", measure(c, c.plain(), 1, opts.rounds), "raw vegeta", per_event=False)
            table(f"With streaming, {TOKENS} chunks of content an answer", measure(c, c.streaming(), TOKENS, opts.rounds), "launchgate", per_event=True)
        finally:
            golden.kill()
            golden.wait()


class Tools:
    """The clients of others, and why one cannot be had."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.bin, self.missing = {}, {}
        venv = folder / "venv"
        if not (venv / "bin" / "guidellm").exists():
            self.get("AIPerf and GuideLLM", [sys.executable, "-m", "venv", venv], [venv / "bin" / "pip", "install", "-q", f"aiperf=={AIPERF}", f"guidellm=={GUIDELLM}"])
        if not (folder / "k6").exists():
            self.get("k6", ["env", f"GOBIN={folder}", "go", "install", f"go.k6.io/k6@{K6}"])
        for name, path in {"aiperf": venv / "bin" / "aiperf", "guidellm": venv / "bin" / "guidellm", "k6": folder / "k6", "wrk": shutil.which("wrk")}.items():
            if path and pathlib.Path(path).exists():
                self.bin[name] = str(path)
            else:
                self.missing.setdefault(name, "not installed")
        self.tokenizer = folder / "tokenizer"
        if "aiperf" in self.bin and not self.tokenizer.exists():
            # AIPerf wants a tokenizer to make its prompts of: bytes are one.
            subprocess.run([venv / "bin" / "python", "-c", (
                "import sys; from tokenizers import Tokenizer, models, pre_tokenizers, decoders\n"
                "from transformers import PreTrainedTokenizerFast as Fast\n"
                "v = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()) + ['</s>'])}\n"
                "t = Tokenizer(models.BPE(vocab=v, merges=[])); t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False); t.decoder = decoders.ByteLevel()\n"
                "Fast(tokenizer_object=t, eos_token='</s>', bos_token='</s>', pad_token='</s>').save_pretrained(sys.argv[1])"), self.tokenizer], check=True)

    def get(self, what, *commands):
        print(f"getting {what}", file=sys.stderr)
        for command in commands:
            if subprocess.run(command).returncode != 0:
                print(f"{what} cannot be had: {command}", file=sys.stderr)
                return


class Clients:
    """How each client is told to do the same work, n requests of it."""

    def __init__(self, work, url, tools):
        self.work, self.url, self.tools = work, url, tools

    def plain(self):
        chat = self.url + "/v1/chat/completions"
        body = json.dumps({"model": "golden", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": TOKENS, "temperature": 0, "stream": False})
        lua = self.file("post.lua", f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [[{body}]]\n')
        k6 = self.file("plain.js", f"""import http from 'k6/http';
export const options = {{scenarios: {{s: {{executor: 'constant-arrival-rate', rate: {RATE}, timeUnit: '1s', duration: __ENV.FOR, preAllocatedVUs: 50}}}}}};
export default function () {{ http.post('{chat}', {json.dumps(body)}, {{headers: {{'Content-Type': 'application/json'}}}}); }}
""")
        return {
            "raw vegeta": (2, 8, lambda s: [self.work / "raw", "-url", chat, "-rate", str(RATE), "-for", str(s)]),
            "launchgate": (2, 8, lambda s: self.launchgate(s, RATE, False)),
            "wrk": (1, 3, lambda s: self.tool("wrk", "-t", "1", "-c", "8", "-d", f"{s}s", "-s", lua, chat)),
            "k6": (2, 8, lambda s: self.tool("k6", "run", "--quiet", "-e", f"FOR={s}s", k6)),
        }

    def streaming(self):
        data = self.file("prompts.jsonl", (json.dumps({"prompt": PROMPT, "output_tokens_count": TOKENS}) + "\n") * 2000)
        return {
            "launchgate": (2, 12, lambda s: self.launchgate(s, STREAM_RATE, True)),
            f"launchgate, {BUSY_RATE / STREAM_RATE:.0f} times the load": (2, 8, lambda s: self.launchgate(s, BUSY_RATE, True)),
            f"AIPerf {AIPERF}": (100, 700, lambda n: self.tool(
                "aiperf", "profile", "--model", "golden", "--url", self.url, "--endpoint-type", "chat", "--streaming", "--concurrency", str(CONCURRENCY),
                "--request-count", str(n), "--isl", "57", "--osl", str(TOKENS), "--tokenizer", self.tools.tokenizer, "--use-server-token-count",
                "--ui", "none", "--no-gpu-telemetry", "--no-server-metrics", "--artifact-dir", self.work / f"aiperf-{n}")),
            f"GuideLLM {GUIDELLM}": (100, 700, lambda n: self.tool(
                "guidellm", "run", "--backend", f"kind=openai_http,target={self.url},model=golden", "--profile", f"kind=concurrent,streams={CONCURRENCY}",
                "--constraint", f"kind=max_requests,count={n}", "--data", f"kind=json_file,path={data}", "--disable-console",
                "--output", f"kind=json,path={self.work / 'guidellm.json'}")),
        }

    def launchgate(self, seconds, rate, stream):
        gate = self.file("gate.yaml", f"""name: cost
seed: 1
target: {{endpoint: {{url: "{self.url}", model: golden}}}}
warmup: {{requests: 1}}
scenarios:
  - name: s
    workload: {{max_tokens: {TOKENS}, stream: {str(stream).lower()}, prompts: ["{PROMPT}"]}}
    stages: [{{name: main, for: {seconds}s, rate: {rate}/s, arrivals: constant}}]
objectives: ["error_rate in s <= 0%"]
""")
        out = self.work / "run"
        shutil.rmtree(out, ignore_errors=True)
        return [self.work / "launchgate", "run", "--out", out, gate]

    def tool(self, name, *args):
        if name not in self.tools.bin:
            raise LookupError(self.tools.missing[name])
        return [self.tools.bin[name], *args]

    def file(self, name, text):
        path = self.work / name
        path.write_text(text)
        return path

    def answered(self):
        """How many requests the server has answered since the last call."""
        with urllib.request.urlopen(self.url + "/count") as r:
            return json.load(r)["answered"]

    def run(self, command):
        """CPU seconds of a command and its children, and the requests it made."""
        self.answered()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([str(a) for a in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, cwd=self.work)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        requests = self.answered()
        if requests == 0 or (done.returncode != 0 and "launchgate" not in str(command[0])):  # its exit code is a verdict
            raise RuntimeError(f"{command[0]} ended with {done.returncode} after {requests} requests:\n{done.stdout[-2000:]}")
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, requests


def measure(clients, how, events, rounds):
    """Seconds of CPU per request of every client, in turns; the best round counts."""
    cost = {}
    for n in range(rounds):
        for name, (little, much, command) in how.items():
            try:
                few, much = clients.run(command(little)), clients.run(command(much))
            except (LookupError, RuntimeError, subprocess.TimeoutExpired) as why:
                cost[name] = str(why).strip()
                continue
            each = (much[0] - few[0]) / (much[1] - few[1])
            print(f"round {n + 1}, {name}: {few[1]} requests {few[0]:.2f} s, {much[1]} requests {much[0]:.2f} s of CPU, {each * 1e6:.1f} µs each, {each / events * 1e6:.2f} µs an event", file=sys.stderr)
            cost[name] = min(each, cost.get(name, each))
    return {name: (v, v / events) if isinstance(v, float) else v for name, v in cost.items()}


def table(title, cost, base, per_event):
    head = "| client | CPU per stream | per event | ratio |\n|---|--:|--:|--:|" if per_event else "| client | CPU per request | ratio |\n|---|--:|--:|"
    print(f"\n{title}:\n\n{head}")
    one = cost[base][0]
    for name, v in cost.items():
        if isinstance(v, str):
            print(f"| {name} | {re.sub(chr(10) + '.*', '', v)} |" + " |" * (2 if per_event else 1))
        elif per_event:
            print(f"| {name} | {v[0] * 1e3:.2f} ms | {v[1] * 1e6:.1f} µs | {v[0] / one:.2f} |")
        else:
            print(f"| {name} | {v[0] * 1e6:.0f} µs | {v[0] / one:.2f} |")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
