#!/usr/bin/env python3
"""llama.cpp and photon side by side: prefill and decode of the same flat models with the same random weights, in alternating rounds of
one run. Prints a table of the medians, in tokens per second, and of the rounds' ratios, for the memory's speed changes by the minute.

    bench/llamacpp.py LLAMA_BIN [--rounds 5] [--threads 2] [--presets flat-20m,flat-134m,flat-597m] [--weights f32,bf16,int8,int4]
                                [--prompt 512] [--tokens 128]

LLAMA_BIN is the folder of a llama.cpp build with llama-bench and llama-quantize. Needs Go and numpy, 4 GB of disk for flat-597m and a
quiet machine: llama.cpp waits in spin barriers. Both hold keys and values as f16, llama.cpp with flash attention.
"""
import argparse
import json
import os
import statistics
import struct
import subprocess
import tempfile

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FORMS = [("f32", "F32"), ("bf16", "BF16"), ("int8", "Q8_0"), ("int4", "Q4_0")]  # photon's weights, llama.cpp's

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
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    args.add_argument("llama")
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--presets", default="flat-20m,flat-134m,flat-597m")
    args.add_argument("--weights", default="f32,bf16,int8,int4")
    args.add_argument("--prompt", type=int, default=512)
    args.add_argument("--tokens", type=int, default=128)
    args = args.parse_args()
    common = ["-p", str(args.prompt), "-n", str(args.tokens)]
    with tempfile.TemporaryDirectory() as work:
        photon = work + "/photon"
        subprocess.run(["go", "build", "-o", photon, "./cmd/photon"], cwd=ROOT, check=True)
        tests = [(name, title) for name, title, n in (("pp", "prefill", args.prompt), ("tg", "decode", args.tokens)) if n]
        head = [f"model, {args.threads} threads", "weights"]
        for name, title in tests:
            head += [f"{title} {args.prompt if name == 'pp' else args.tokens}: llama.cpp", "photon", "ratio"]
        print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head), flush=True)
        for preset in args.presets.split(","):
            model, base = f"{work}/{preset}", f"{work}/{preset}-F32.gguf"
            run(photon, "init", "-preset", preset, model)
            write_gguf(model, base)
            for weights, quant in (form for form in FORMS if form[0] in args.weights.split(",")):
                path = f"{work}/{preset}-{quant}.gguf"
                if quant != "F32":
                    run(args.llama + "/llama-quantize", "--pure", base, path, quant)
                speed = {}
                for _ in range(args.rounds):
                    out = run(args.llama + "/llama-bench", "-m", path, "-t", str(args.threads), "-fa", "1", "-r", "1", "-o", "jsonl", *common)
                    for row in map(json.loads, out.splitlines()):
                        speed.setdefault(("llama.cpp", "pp" if row["n_prompt"] else "tg"), []).append(row["avg_ts"])
                    out = run(photon, "bench", "-model", model, "-weights", weights, "-cache", "f16", "-threads", str(args.threads), "-r", "3", "-json", *common)
                    for row in map(json.loads, out.splitlines()):
                        speed.setdefault(("photon", row["test"][:2]), []).append(row["tokens_per_second"])
                cells = []
                for test, _ in tests:
                    theirs, ours = speed["llama.cpp", test], speed["photon", test]
                    ratio = statistics.median(b / a for a, b in zip(theirs, ours))
                    cells += [f"{statistics.median(theirs):,.0f}", f"{statistics.median(ours):,.0f}", f"{ratio:.2f}"]
                print("| " + " | ".join([preset, f"{weights} / {quant.lower()}", *cells]) + " |", flush=True)
                if quant != "F32":
                    os.remove(path)
            os.remove(base)


if __name__ == "__main__":
    main()
