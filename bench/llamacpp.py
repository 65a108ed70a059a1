#!/usr/bin/env python3
"""llama.cpp, its fork ik_llama.cpp and photon side by side: the same flat models with the same random weights, in alternating rounds
of one run. Prints a table of the medians, in tokens per second, and of the rounds' ratios to the best of the others, for the memory's
speed changes by the minute.

    bench/llamacpp.py NAME=FOLDER... [--rounds 5] [--threads 2] [--presets flat-20m,flat-134m,flat-597m]
                      [--weights f32,bf16,int8,int4] [--prompt 512,4096] [--tokens 128] [--texts 8,32 --depth 512]

FOLDER is that of a build, with llama-bench, llama-quantize (the first's is used) and, for --texts, llama-batched-bench:
in a clone of llama.cpp or of ik_llama.cpp

    cmake -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF
    ninja -C build llama-bench llama-quantize llama-batched-bench

makes build/bin. Where its kernels for AMX stop with an invalid instruction: -DGGML_NATIVE=OFF, and the processor's
other features by name. A build that knows -rtr, which packs weights anew when it loads them, is measured with it too.

Needs Go and numpy, 4 GB of disk for flat-597m and a quiet machine: llama.cpp waits in spin barriers. All hold keys and
values as f16, with flash attention. --texts: so many texts, that have nothing in common, decode 64 tokens together,
each behind --depth of its own.
"""
import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FORMS = [("f32", "F32"), ("bf16", "BF16"), ("int8", "Q8_0"), ("int4", "Q4_0")]  # photon's weights, llama.cpp's

TOGETHER = 64  # tokens of each of several texts

NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
          "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    name = name.removesuffix(".weight")
    if name in NAMES:
        return NAMES[name] + ".weight"
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{LAYER[part]}.weight"


def gguf_field(key, value):
    text = lambda s: struct.pack("<Q", len(s)) + s.encode()
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    return text(key) + struct.pack("<II", 4, value)


def write_gguf(model, path):
    """Writes a flat model directory with BF16 weights as a GGUF file of float32, without a tokenizer."""
    import numpy as np

    with open(model + "/config.json") as f:
        cfg = json.load(f)
    with open(model + "/model.safetensors", "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        bits = np.frombuffer(f.read(), np.uint16)
    header.pop("__metadata__", None)
    arch = cfg["model_type"]
    fields = {
        "general.architecture": arch, "general.alignment": 32, "tokenizer.ggml.model": "no_vocab",
        f"{arch}.vocab_size": cfg["vocab_size"], f"{arch}.context_length": 1 << 20, f"{arch}.embedding_length": cfg["hidden_size"],
        f"{arch}.block_count": cfg["num_hidden_layers"], f"{arch}.feed_forward_length": cfg["intermediate_size"],
        f"{arch}.attention.head_count": cfg["num_attention_heads"], f"{arch}.attention.head_count_kv": cfg["num_key_value_heads"],
        f"{arch}.attention.key_length": cfg["head_dim"], f"{arch}.attention.value_length": cfg["head_dim"],
        f"{arch}.rope.dimension_count": cfg["head_dim"], f"{arch}.rope.freq_base": float(cfg["rope_theta"]),
        f"{arch}.attention.layer_norm_rms_epsilon": float(cfg["rms_norm_eps"]),
    }
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(header), len(fields)) + b"".join(gguf_field(k, v) for k, v in fields.items())
    at = 0
    for name, tensor in header.items():
        shape, name = tensor["shape"][::-1], gguf_name(name).encode()
        head += struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, at)
        at += -(-4 * int(np.prod(shape)) // 32) * 32
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32))
        for tensor in header.values():
            begin, end = (offset // 2 for offset in tensor["data_offsets"])
            values = (bits[begin:end].astype(np.uint32) << 16).tobytes()
            f.write(values + bytes(-len(values) % 32))


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        last = "".join(done.stderr.splitlines(True)[-8:])
        sys.exit(f"llamacpp.py: {' '.join(command)} ended with {done.returncode}:\n{last}")
    return done.stdout


class Llama:
    """A build of llama.cpp or of its fork, in one way of calling it."""

    def __init__(self, folder, repack=False):
        self.folder, self.repack = folder, repack

    def measure(self, path, threads, prompts, tokens, texts, depth):
        """Tokens a second by test."""
        rates = {}
        if prompts or tokens:
            out = run(self.folder + "/llama-bench", "-m", path, "-t", str(threads), "-fa", "1", "-r", "1", "-o", "json",
                      "-p", ",".join(map(str, prompts or [0])), "-n", str(tokens), *["-rtr", "1"][:2 * self.repack])
            for row in json.loads(out):
                rates[("prefill", row["n_prompt"]) if row["n_prompt"] else ("decode", row["n_gen"])] = row["avg_ts"]
        if texts:
            out = run(self.folder + "/llama-batched-bench", "-m", path, "-t", str(threads), "-fa", "on", "-c",
                      str(max(texts) * (depth + TOGETHER)), "-npp", str(depth), "-ntg", str(TOGETHER),
                      "-npl", ",".join(map(str, texts)), *["-rtr"][:self.repack])
            for line in out.splitlines():
                cells = [cell.strip() for cell in line.split("|")[1:-1]]
                if len(cells) == 10 and cells[0].isdigit():  # PP, TG, B, N_KV, T_PP, S_PP, T_TG, S_TG, T, S
                    rates["together", int(cells[2])] = float(cells[7])
        return rates


class Photon:
    def __init__(self, command, model, weights):
        self.command, self.model, self.weights = command, model, weights

    def measure(self, threads, prompts, tokens, texts, depth):
        common = [self.command, "bench", "-model", self.model, "-weights", self.weights, "-cache", "f16", "-threads", str(threads), "-json"]
        rates = {}
        for i, prompt in enumerate(prompts or [0] * bool(tokens)):
            for row in map(json.loads, run(*common, "-r", "3", "-p", str(prompt), "-n", str(0 if i else tokens)).splitlines()):
                rates[("prefill", prompt) if row["test"].startswith("pp") else ("decode", tokens)] = row["tokens_per_second"]
        if texts:
            out = run(*common, "-r", "3", "-p", "0", "-n", str(TOGETHER), "-d", str(depth), "-b", ",".join(map(str, texts)), "-apart")
            for row in map(json.loads, out.splitlines()):
                rates["together", int(row["test"].partition("x")[2] or 1)] = row["tokens_per_second"]
        return rates


def title(test, depth):
    kind, n = test
    return f"{n} texts behind {depth:,}" if kind == "together" else f"{kind} {n:,}"


def main():
    numbers = lambda text: [int(n) for n in text.split(",") if n and int(n)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--presets", default="flat-20m,flat-134m,flat-597m", help="flat ones that photon init knows")
    parser.add_argument("--weights", default="f32,bf16,int8,int4")
    parser.add_argument("--prompt", type=numbers, default=[512], help="tokens of prompts to read; 0: none")
    parser.add_argument("--tokens", type=int, default=128, help="tokens to decode; 0: none")
    parser.add_argument("--texts", type=numbers, default=[], help="how many decode together")
    parser.add_argument("--depth", type=int, default=512, help="tokens behind which these do")
    args = parser.parse_args()
    tools = ["llama-bench", "llama-quantize"] + ["llama-batched-bench"] * bool(args.texts)
    for build in args.builds:
        name, is_one, folder = build.partition("=")
        missing = [tool for tool in tools if not os.access(os.path.join(folder, tool), os.X_OK)]
        if not is_one or missing:
            why = f": {folder} has no {', '.join(missing)}" if is_one else ""
            parser.error(f"{build!r} is not NAME=FOLDER of a build{why}")
    what = args.threads, args.prompt, args.tokens, args.texts, args.depth
    others = {}
    for name, folder in (build.split("=", 1) for build in args.builds):
        others[name] = Llama(folder)
        if "-rtr" in subprocess.run([folder + "/llama-bench", "-h"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout:
            others[name + " -rtr 1"] = Llama(folder, repack=True)
    quantize = next(iter(others.values())).folder + "/llama-quantize"
    with tempfile.TemporaryDirectory() as work:
        photon = work + "/photon"
        subprocess.run(["go", "build", "-o", photon, "./cmd/photon"], cwd=ROOT, check=True)
        head = [f"model, {args.threads} threads", "weights", "tokens per second", *others, "photon", "× the best"]
        print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head), flush=True)
        for preset in args.presets.split(","):
            model, base = f"{work}/{preset}", f"{work}/{preset}-F32.gguf"
            run(photon, "init", "-preset", preset, model)
            write_gguf(model, base)
            for weights, quant in (form for form in FORMS if form[0] in args.weights.split(",")):
                path = f"{work}/{preset}-{quant}.gguf"
                if quant != "F32":
                    run(quantize, "--pure", base, path, quant)
                rounds = []
                for _ in range(args.rounds):
                    rounds.append({name: build.measure(path, *what) for name, build in others.items()})
                    rounds[-1]["photon"] = Photon(photon, model, weights).measure(*what)
                for test in rounds[0]["photon"]:
                    median = {name: statistics.median(r[name][test] for r in rounds) for name in rounds[0]}
                    ratio = statistics.median(r["photon"][test] / max(r[name][test] for name in others) for r in rounds)
                    cells = [f"{median[name]:,.0f}" for name in (*others, "photon")]
                    print("| " + " | ".join([preset, f"{weights} / {quant.lower()}", title(test, args.depth), *cells, f"{ratio:.2f}"]) + " |",
                          flush=True)
                if quant != "F32":
                    os.remove(path)
            os.remove(base)


if __name__ == "__main__":
    main()
