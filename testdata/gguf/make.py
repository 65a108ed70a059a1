"""Tiny GGUF models, quantised by llama.cpp, with the logits and the token ids that llama.cpp gives.

    python3 make.py LL

LL is a program over llama.cpp's library: `LL quantize IN OUT FTYPE PURE` is llama_model_quantize, `LL logits FILE ID...`
writes the logits of a text as float32, `LL tokenize FILE` reads texts (a uint32 of length, then the bytes) and prints a
list of ids for each, special tokens parsed and added.

NAME.gguf is the model; NAME.safetensors holds ids (I32 [T]), exact (F32 [T, vocab]), the logits of the weights as stored
by ../../train/flats.py in float64, and llamacpp, those of llama.cpp, which rounds activations where weights are quantised;
NAME.ids.json the ids of the texts of ../tokenizer/KIND.cases.json.
"""

import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "train"))
import flats
import tensorfile

F32, F16, Q4_0, Q8_0, Q6_K, BF16 = 0, 1, 2, 8, 14, 30
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


# --- the container ---------------------------------------------------------------------------------


def text(s):
    s = s.encode()
    return struct.pack("<Q", len(s)) + s


def value(v):
    """The kind and the bytes of a value: a bool, an int (uint32), a float (float32), a string, or a list of one of them."""
    if isinstance(v, bool):
        return 7, struct.pack("<?", v)
    if isinstance(v, int):
        return 4, struct.pack("<I", v)
    if isinstance(v, float):
        return 6, struct.pack("<f", v)
    if isinstance(v, str):
        return 8, text(v)
    if all(type(x) is int for x in v):
        return 9, struct.pack(f"<IQ{len(v)}i", 5, len(v), *v)  # llama.cpp wants int32 here
    parts = [value(x) for x in v]
    kinds = {kind for kind, _ in parts}
    assert len(kinds) == 1, v
    return 9, struct.pack("<IQ", kinds.pop(), len(v)) + b"".join(data for _, data in parts)


def write(path, keys, tensors):
    """tensors: {name: (type, shape, bytes)}."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys))
    for key, v in keys.items():
        kind, data = value(v)
        head += text(key) + struct.pack("<I", kind) + data
    at, pad = 0, lambda n: -n % 32
    for name, (kind, shape, data) in tensors.items():
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, at)
        at += len(data) + pad(len(data))
    with open(path, "wb") as file:
        file.write(head + bytes(pad(len(head))))
        for _, _, data in tensors.values():
            file.write(data + bytes(pad(len(data))))


def read(path):
    """The tensors of a file as float64 arrays, {name: array}, and their types."""
    with open(path, "rb") as file:
        data = file.read()
    at = 8
    def take(form):
        nonlocal at
        out = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return out if len(out) > 1 else out[0]
    def string():
        nonlocal at
        n = take("Q")
        at += n
        return data[at - n : at].decode()
    def skip(kind):
        nonlocal at
        if kind == 8:
            string()
        elif kind == 9:
            inner, n = take("IQ")
            for _ in range(n):
                skip(inner)
        else:
            at += {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}[kind]
    count, keys = take("QQ")
    for _ in range(keys):
        string()
        skip(take("I"))
    infos = []
    for _ in range(count):
        name, rank = string(), take("I")
        shape = take(f"{rank}Q")
        shape = (shape,) if rank == 1 else shape
        infos.append((name, shape[::-1], *take("IQ")))
    base = at + -at % 32
    return ({name: values(data[base + offset :], kind, shape) for name, shape, kind, offset in infos},
            {name: kind for name, _, kind, _ in infos})


def values(data, kind, shape):
    n = int(np.prod(shape))
    if kind in (F32, F16, BF16):
        raw = np.frombuffer(data, {F32: "<f4", F16: "<f2", BF16: "<u2"}[kind], n)
        return (tensorfile.from_bf16(raw) if kind == BF16 else raw).astype(np.float64).reshape(shape)
    block, size = {Q4_0: (32, 18), Q8_0: (32, 34), Q6_K: (256, 210)}[kind]
    blocks = np.frombuffer(data, np.uint8, n // block * size).reshape(-1, size)
    half = lambda x: np.ascontiguousarray(x).view("<f2").astype(np.float64)
    if kind == Q8_0:
        out = half(blocks[:, :2]) * np.ascontiguousarray(blocks[:, 2:]).view(np.int8)
    elif kind == Q4_0:
        q = blocks[:, 2:].astype(int)
        out = half(blocks[:, :2]) * (np.concatenate((q & 15, q >> 4), -1) - 8)
    else:
        out = np.empty((len(blocks), 256))
        for r, (low, high) in enumerate(zip(blocks[:, :128].astype(int), blocks[:, 128:192].astype(int))):
            for h in range(2):
                for row in range(4):
                    l = low[64 * h + 32 * (row % 2) :][:32] >> (4 * (row // 2)) & 15
                    out[r, 128 * h + 32 * row :][:32] = (l | (high[32 * h :][:32] >> (2 * row) & 3) << 4) - 32
        scales = half(blocks[:, 208:]) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
        out *= np.repeat(scales, 16, axis=1)
    return out.reshape(shape)


# --- models ----------------------------------------------------------------------------------------


def gguf_name(name):
    base, end = name.rsplit(".", 1)
    if base in TOP:
        return f"{TOP[base]}.{end}"
    _, _, layer, part = base.split(".", 3)
    return f"blk.{layer}.{LAYER[part]}.{end}"


def interleave(x, dim):
    """Rows of each head, so that those that rotate together are neighbours: the original LLaMA's order."""
    return x.reshape(-1, 2, dim // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def straighten(x, dim):
    return x.reshape(-1, dim // 2, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def keys_of(name, cfg, tokenizer, pre, more):
    arch = cfg["model_type"]
    out = {"general.architecture": arch, "general.name": name, f"{arch}.vocab_size": cfg["vocab_size"],
           f"{arch}.context_length": 512, f"{arch}.embedding_length": cfg["hidden_size"],
           f"{arch}.block_count": cfg["num_hidden_layers"], f"{arch}.feed_forward_length": cfg["intermediate_size"],
           f"{arch}.attention.head_count": cfg["num_attention_heads"],
           f"{arch}.attention.head_count_kv": cfg["num_key_value_heads"],
           f"{arch}.attention.key_length": cfg["head_dim"], f"{arch}.attention.value_length": cfg["head_dim"],
           f"{arch}.rope.dimension_count": cfg["head_dim"], f"{arch}.rope.freq_base": float(cfg["rope_theta"]),
           f"{arch}.attention.layer_norm_rms_epsilon": cfg["rms_norm_eps"]}
    scaling = cfg.get("rope_scaling") or {}
    if scaling.get("type") == "linear":
        out.update({f"{arch}.rope.scaling.type": "linear", f"{arch}.rope.scaling.factor": scaling["factor"]})
    model, added = tokenizer["model"], {t["id"]: t for t in tokenizer["added_tokens"]}
    spelled = {i: t for t, i in model["vocab"].items()}
    spelled.update({i: t["content"] for i, t in added.items()})
    tokens = [spelled[i] for i in range(len(spelled))]
    kinds = []
    for i, token in enumerate(tokens):
        byte = len(token) == 6 and token.startswith("<0x")
        kinds.append(2 if token == "<unk>" else 6 if byte else (3 if added[i]["special"] else 4) if i in added else 1)
    while len(tokens) < cfg["vocab_size"]:
        tokens.append(f"[PAD{len(tokens)}]")
        kinds.append(5)
    pairs = [m if isinstance(m, list) else m.split(" ") for m in model["merges"]]
    out.update({"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds})
    if pre == "llama":
        made = {}
        for rank, (a, b) in enumerate(pairs):
            made.setdefault(a + b, rank)
        out["tokenizer.ggml.model"] = "llama"
        out["tokenizer.ggml.scores"] = [-float(made.get(t, 1000 + i)) for i, t in enumerate(tokens)]
        out["tokenizer.ggml.unknown_token_id"] = 0
    else:
        out.update({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre,
                    "tokenizer.ggml.merges": [" ".join(p) for p in pairs]})
    return {**out, **more}


# name: type of the matrices, llama.cpp's ftype (None: none), tokenizer, pre, further keys, configuration
def model(kind, **more):
    cfg = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
           "num_hidden_layers": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False}
    return {"model_type": kind, **cfg, **more}


CASES = {
    "llama3-f32": (F32, None, "llama3", "llama-bpe", {"tokenizer.ggml.add_bos_token": True}, model(
        "llama", tie_word_embeddings=True, rope_scaling={
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 24})),
    "llama2-q4_0": (F32, 2, "llama2", "llama", {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}, model(
        "llama", hidden_size=256, intermediate_size=96, num_attention_heads=2, num_key_value_heads=2)),
    "smollm2-q8_0": (F32, 7, "smollm2", "smollm", {}, model(
        "llama", hidden_size=64, rope_scaling={"type": "linear", "factor": 4.0}, tie_word_embeddings=True)),
    "mistral-nemo-f16": (F16, None, "tekken", "tekken", {"tokenizer.ggml.add_bos_token": False}, model("llama", head_dim=8)),
    "qwen2-q8_0": (F32, 7, "qwen2", "qwen2", {}, model("qwen2", hidden_size=64)),
    "qwen3-bf16": (BF16, None, "qwen3", "qwen2", {"tokenizer.chat_template": "{{ '<|im_start|>' }}"}, model("qwen3", head_dim=32)),
    "smollm3-q8_0": (F32, 7, "gpt2", "gpt-2", {}, model(
        "smollm3", num_hidden_layers=4, hidden_size=64, no_rope_layer_interval=4, rope_theta=50000.0)),
}
LENGTH = 29


def main():
    ll = sys.argv[1]
    for name, (kind, ftype, family, pre, more, cfg) in CASES.items():
        with open(os.path.join(HERE, "..", "tokenizer", family + ".json"), encoding="utf-8") as file:
            tokenizer = json.load(file)
        size = len(set(tokenizer["model"]["vocab"].values()) | {t["id"] for t in tokenizer["added_tokens"]})
        cfg["vocab_size"] = size + 3
        weights = flats.random_weights(name, cfg)
        dim, path = cfg["head_dim"], os.path.join(HERE, name + ".gguf")
        permuted = [f"self_attn.{x}_proj." for x in "qk"] if cfg["model_type"] in ("llama", "smollm3") else []
        tensors = {}
        for key, x in weights.items():
            if any(part in key for part in permuted):
                x = interleave(x, dim)
            this = kind if x.ndim == 2 else F32
            raw = tensorfile.to_bf16(x) if this == BF16 else x.astype({F32: "<f4", F16: "<f2"}[this])
            tensors[gguf_name(key)] = this, x.shape, raw.tobytes()
        if (cfg.get("rope_scaling") or {}).get("rope_type") == "llama3":
            plain = flats.frequencies(dict(cfg, rope_scaling=None), dim)
            factors = (plain / flats.frequencies(cfg, dim)).astype("<f4")
            tensors["rope_freqs.weight"] = F32, factors.shape, factors.tobytes()
        bos = 0 if pre != "llama" else 1
        keys = keys_of(name, cfg, tokenizer, pre, {"tokenizer.ggml.bos_token_id": size - 2, "tokenizer.ggml.eos_token_id": bos, **more})
        write(path, keys, tensors)
        ids = np.random.RandomState(zlib.crc32(name.encode())).randint(0, size, LENGTH)

        def theirs(path):
            out = subprocess.run([ll, "logits", path, *map(str, ids)], check=True, stdout=subprocess.PIPE).stdout
            return np.frombuffer(out, "<f4").reshape(LENGTH, -1)

        if kind == F32:  # two definitions of the architecture, without rounding between them
            want, have = flats.logits(cfg, weights, ids), theirs(path)
            if not np.abs(have - want).max() < 3e-6 * np.abs(want).max():
                sys.exit(f"{name}: flats.py and llama.cpp differ")
        if ftype is not None:
            os.rename(path, path + ".tmp")
            subprocess.run([ll, "quantize", path + ".tmp", path, str(ftype), "0"], check=True)
            os.remove(path + ".tmp")
        stored, types = read(path)
        print(name, size, sorted(set(types.values())), os.path.getsize(path))
        exact = {}
        for key in weights:
            x = stored[gguf_name(key)]
            exact[key] = straighten(x, dim) if any(part in key for part in permuted) else x
        want, have = flats.logits(cfg, exact, ids), theirs(path)
        print("  llama.cpp differs by", np.abs(have - want).max() / np.abs(want).max(), "of the largest logit")
        tensorfile.write(os.path.join(HERE, name + ".safetensors"), {
            "ids": ("I32", ids.astype("<i4")), "exact": ("F32", want.astype("<f4")), "llamacpp": ("F32", have)})
        with open(os.path.join(HERE, "..", "tokenizer", family + ".cases.json"), encoding="utf-8") as file:
            texts = [case["text"].encode() for case in json.load(file)["encoded"]]
        sent = b"".join(struct.pack("<I", len(t)) + t for t in texts)
        out = subprocess.run([ll, "tokenize", path], input=sent, check=True, stdout=subprocess.PIPE).stdout
        with open(os.path.join(HERE, name + ".ids.json"), "w") as file:
            file.write("[\n" + ",\n".join(out.decode().split("\n")[:-1]) + "\n]\n")


if __name__ == "__main__":
    main()
