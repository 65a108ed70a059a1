"""Flat models of other people: what Llama 3, Mistral, Qwen 2, Qwen 3 and SmolLM compute, in numpy and float64.

A definition to test the Go library by, from the formulas of Hugging Face's documentation and of the papers, reading the
config.json that those models come with. It is written for one text at a time, and to be read.

    python3 flats.py DIR            writes tiny random models of each kind, with their logits, below DIR
    python3 flats.py --check DIR    computes them afresh and compares

DIR/NAME/ holds config.json, model.safetensors and golden.safetensors: ids (I32 [T]), Xhat0, the states that the head
reads (F32 [T, hidden]), and logits (F32 [T, vocab]), where row i predicts token i+1.
"""

import argparse
import json
import os
import sys
import tempfile
import zlib

import numpy as np

import tensorfile


# --- the models ------------------------------------------------------------------------------------


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def silu(x):
    return x / (1 + np.exp(-x))


def frequencies(cfg, dim):
    """Radians a position, [dim/2], scaled as rope_scaling (or rope_parameters) says."""
    scaling = cfg.get("rope_parameters") or cfg.get("rope_scaling") or {}
    theta = scaling.get("rope_theta") or cfg.get("rope_theta") or (2e6 if cfg["model_type"] == "smollm3" else 1e4)
    plain = theta ** (-np.arange(0, dim, 2) / dim)
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind == "default":
        return plain
    if kind == "linear":
        return plain / scaling["factor"]
    if kind != "llama3":
        raise ValueError(f"rope_type {kind!r} is not defined here")
    out = []
    for f in plain:
        wavelength = 2 * np.pi / f
        original, low, high = (scaling[k] for k in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"))
        if wavelength > original / low:
            f = f / scaling["factor"]
        elif wavelength >= original / high:
            smooth = (original / wavelength - low) / (high - low)
            f = (1 - smooth) * f / scaling["factor"] + smooth * f
        out.append(f)
    return np.array(out)


def rotate(x, angles):
    """x [T, heads, dim], angles [T, dim/2]: element j turns with element j + dim/2."""
    half = x.shape[-1] // 2
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), -1)


def rotates(cfg, layer):
    if cfg["model_type"] != "smollm3":
        return True
    if cfg.get("no_rope_layers") is not None:
        return bool(cfg["no_rope_layers"][layer])
    return (layer + 1) % cfg.get("no_rope_layer_interval", 4) != 0


def window(cfg, layer):
    """Rows that a row sees, itself included; 0: all."""
    kind, size = cfg["model_type"], cfg.get("sliding_window") or 0
    if kind == "llama" or kind in ("qwen2", "qwen3", "smollm3") and not cfg.get("use_sliding_window"):
        return 0
    if cfg.get("layer_types"):
        return size if cfg["layer_types"][layer] == "sliding_attention" else 0
    if kind in ("qwen2", "qwen3"):
        return size if layer >= cfg["max_window_layers"] else 0
    if kind == "smollm3":
        return 0 if rotates(cfg, layer) else size
    return size


def attend(q, k, v, size):
    """Causal attention, q [T, heads, dim], k and v [T, kv heads, dim]; query head h reads kv head h // group."""
    rows, heads, dim = q.shape
    group = heads // k.shape[1]
    seen = np.tril(np.ones((rows, rows), bool))
    if size:
        seen &= ~np.tril(np.ones((rows, rows), bool), -size)
    out = np.empty_like(q)
    for h in range(heads):
        scores = np.where(seen, q[:, h] @ k[:, h // group].T / np.sqrt(dim), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, h] = weights / weights.sum(-1, keepdims=True) @ v[:, h // group]
    return out


def states(cfg, weights, ids):
    """What the head reads, [T, hidden], float64. Biases and the norms of queries and keys count where `weights` has them."""

    def linear(x, name):
        y = x @ weights[name + ".weight"].T
        return y + weights[name + ".bias"] if name + ".bias" in weights else y

    heads = cfg["num_attention_heads"]
    kv_heads = cfg.get("num_key_value_heads") or heads
    dim = cfg.get("head_dim") or cfg["hidden_size"] // heads
    eps, rows = cfg.get("rms_norm_eps", 1e-6), len(ids)
    angles = np.arange(rows)[:, None] * frequencies(cfg, dim)
    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(cfg["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        h = rms_norm(x, weights[at + "input_layernorm.weight"], eps)
        q = linear(h, at + "self_attn.q_proj").reshape(rows, heads, dim)
        k = linear(h, at + "self_attn.k_proj").reshape(rows, kv_heads, dim)
        v = linear(h, at + "self_attn.v_proj").reshape(rows, kv_heads, dim)
        if at + "self_attn.q_norm.weight" in weights:
            q = rms_norm(q, weights[at + "self_attn.q_norm.weight"], eps)
            k = rms_norm(k, weights[at + "self_attn.k_norm.weight"], eps)
        if rotates(cfg, layer):
            q, k = rotate(q, angles), rotate(k, angles)
        x = x + linear(attend(q, k, v, window(cfg, layer)).reshape(rows, -1), at + "self_attn.o_proj")
        h = rms_norm(x, weights[at + "post_attention_layernorm.weight"], eps)
        x = x + linear(silu(linear(h, at + "mlp.gate_proj")) * linear(h, at + "mlp.up_proj"), at + "mlp.down_proj")
    return rms_norm(x, weights["model.norm.weight"], eps)


def logits(cfg, weights, ids):
    """[T, vocab], float64."""
    tied = cfg.get("tie_word_embeddings", cfg["model_type"] == "smollm3")
    head = weights["model.embed_tokens.weight" if tied else "lm_head.weight"]
    return states(cfg, weights, ids) @ head.T


def shapes(cfg):
    """{name: shape} of a model's tensors, a copied head left out."""
    d, f, kind = cfg["hidden_size"], cfg["intermediate_size"], cfg["model_type"]
    dim = cfg.get("head_dim") or d // cfg["num_attention_heads"]
    q, kv = cfg["num_attention_heads"] * dim, cfg["num_key_value_heads"] * dim
    bias = cfg.get("attention_bias", False) and kind in ("llama", "qwen3", "smollm3")
    out = {"model.embed_tokens.weight": (cfg["vocab_size"], d), "model.norm.weight": (d,)}
    for layer in range(cfg["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        out[at + "input_layernorm.weight"] = out[at + "post_attention_layernorm.weight"] = (d,)
        for name, rows, columns in (("q", q, d), ("k", kv, d), ("v", kv, d), ("o", d, q)):
            out[f"{at}self_attn.{name}_proj.weight"] = (rows, columns)
            if bias or kind == "qwen2" and name != "o":
                out[f"{at}self_attn.{name}_proj.bias"] = (rows,)
        for name, rows, columns in (("gate", f, d), ("up", f, d), ("down", d, f)):
            out[f"{at}mlp.{name}_proj.weight"] = (rows, columns)
            if cfg.get("mlp_bias"):
                out[f"{at}mlp.{name}_proj.bias"] = (rows,)
        if kind == "qwen3":
            out[at + "self_attn.q_norm.weight"] = out[at + "self_attn.k_norm.weight"] = (dim,)
    if not cfg.get("tie_word_embeddings", kind == "smollm3"):
        out["lm_head.weight"] = (cfg["vocab_size"], d)
    return out


# --- the golden files ------------------------------------------------------------------------------


def config(kind, hidden, ffn, heads, kv, layers, **more):
    cfg = {"model_type": kind, "vocab_size": 61, "hidden_size": hidden, "intermediate_size": ffn, "hidden_act": "silu",
           "num_attention_heads": heads, "num_key_value_heads": kv, "num_hidden_layers": layers, "rms_norm_eps": 1e-5,
           "max_position_embeddings": 64, "torch_dtype": "bfloat16", "use_cache": True, "eos_token_id": 2}
    return {**cfg, **more}


# As published configurations spell them, old and new; the sizes are small.
CASES = {
    "llama3-tied-f32": ("F32", config(
        "llama", 32, 44, 4, 2, 2, head_dim=16, rope_theta=500000.0, tie_word_embeddings=True, bos_token_id=1,
        eos_token_id=[2, 5, 7], attention_bias=False, mlp_bias=False, pretraining_tp=1,
        rope_scaling={"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                      "original_max_position_embeddings": 48, "rope_type": "llama3"})),
    "llama3-stored-head-bf16": ("BF16", config(
        "llama", 24, 52, 3, 1, 2, head_dim=16, tie_word_embeddings=True, bos_token_id=1,
        rope_parameters={"factor": 8.0, "high_freq_factor": 5.0, "low_freq_factor": 2.0, "rope_theta": 10000.0,
                         "original_max_position_embeddings": 80, "rope_type": "llama3"})),
    "llama-linear-biases-f16": ("F16", config(
        "llama", 24, 36, 4, 4, 2, attention_bias=True, mlp_bias=True, hidden_act="swish", tie_word_embeddings=False,
        rope_scaling={"type": "linear", "factor": 2.5})),
    "mistral-nemo-f32": ("F32", config(
        "mistral", 28, 36, 4, 2, 2, head_dim=10, rope_theta=1000000.0, sliding_window=None, tie_word_embeddings=None,
        bos_token_id=1, attention_dropout=0.0)),
    "smollm2-f32": ("F32", config(
        "llama", 36, 52, 3, 1, 2, rope_theta=100000, rope_interleaved=False, rope_scaling=None, is_llama_config=True,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, attention_bias=False)),
    "smollm3-bf16": ("BF16", config(
        "smollm3", 24, 52, 4, 2, 4, rope_theta=5000000.0, no_rope_layers=[1, 0, 1, 0], no_rope_layer_interval=2,
        rope_scaling=None, use_sliding_window=False, sliding_window=None, max_window_layers=28, attention_bias=False,
        mlp_bias=False, layer_types=["full_attention"] * 4, rms_norm_eps=1e-6, bos_token_id=None, pretraining_tp=2)),
    "smollm3-window-f32": ("F32", config(
        "smollm3", 20, 36, 2, 1, 3, no_rope_layer_interval=2, use_sliding_window=True, sliding_window=9, mlp_bias=True,
        attention_bias=True, tie_word_embeddings=False)),
    "qwen2-bf16": ("BF16", config(
        "qwen2", 32, 44, 4, 2, 2, rope_theta=1000000.0, sliding_window=32768, use_sliding_window=False, rms_norm_eps=1e-6,
        max_window_layers=21, use_mrope=False, tie_word_embeddings=True, bos_token_id=3, attention_dropout=0.0)),
    "qwen2-window-f32": ("F32", config(
        "qwen2", 24, 36, 3, 3, 3, sliding_window=7, use_sliding_window=True, max_window_layers=1, tie_word_embeddings=False)),
    "qwen3-f32": ("F32", config(
        "qwen3", 24, 52, 4, 2, 2, head_dim=16, rope_theta=1000000, rope_scaling=None, sliding_window=None, rms_norm_eps=1e-6,
        use_sliding_window=False, max_window_layers=2, attention_bias=False, tie_word_embeddings=True, bos_token_id=1)),
    "qwen3-biases-i8": ("I8", config(
        "qwen3", 40, 68, 3, 1, 3, head_dim=14, attention_bias=True, tie_word_embeddings=False, use_sliding_window=True,
        sliding_window=11, layer_types=["full_attention", "sliding_attention", "full_attention"],
        rope_parameters={"rope_type": "default", "rope_theta": 20000.0})),
}
STORED_HEAD = {"llama3-stored-head-bf16"}
LENGTH = 71


def random_weights(name, cfg):
    """Uniform draws, scaled so that every part of the arithmetic shows in the logits; the same on every machine."""
    out = {}
    for key, shape in shapes(cfg).items():
        numbers = np.random.RandomState(zlib.crc32(f"{name} {key}".encode()))
        if key.endswith("norm.weight"):
            out[key] = numbers.uniform(0.5, 1.5, shape)
            continue
        part = key.split(".")[-2]
        spread = {"q_proj": 1.6, "k_proj": 1.6, "lm_head": 2.5, "embed_tokens": 2.5}.get(part, 1.1) * shape[-1] ** -0.5
        spread = 0.5 if key.endswith(".bias") else spread
        out[key] = numbers.uniform(-1, 1, shape) * spread * 3**0.5
    return out


def compute(name):
    """The configuration, the stored tensors and the reference of a case."""
    form, cfg = CASES[name]
    weights = random_weights(name, cfg)
    stored = tensorfile.store(weights, form)
    ids = np.random.RandomState(zlib.crc32(f"ids {name}".encode())).randint(0, cfg["vocab_size"], LENGTH)
    exact = tensorfile.values(stored)
    reference = {"Xhat0": states(cfg, exact, ids), "logits": logits(cfg, exact, ids)}
    if name in STORED_HEAD:
        stored["lm_head.weight"] = stored["model.embed_tokens.weight"]
    reference = {key: ("F32", x.astype("<f4")) for key, x in reference.items()}
    return cfg, stored, {"ids": ("I32", ids.astype("<i4")), **reference}


def write(name, directory):
    cfg, stored, reference = compute(name)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as file:
        json.dump(cfg, file, indent=1)
        file.write("\n")
    tensorfile.write_model(directory, stored)
    tensorfile.write(os.path.join(directory, "golden.safetensors"), reference)


def check(name, directory):
    """Raises unless the directory holds what `compute` gives: the model to the bit, logits to 1e-5 of the largest."""
    with tempfile.TemporaryDirectory() as fresh:
        write(name, fresh)
        for file in ("config.json", "model.safetensors"):
            with open(os.path.join(fresh, file), "rb") as want, open(os.path.join(directory, file), "rb") as have:
                if want.read() != have.read():
                    raise ValueError(f"{directory}/{file} differs from a fresh one: run flats.py to write it again")
        want = tensorfile.read(os.path.join(fresh, "golden.safetensors"))
    have = tensorfile.read(os.path.join(directory, "golden.safetensors"))
    if list(want) != list(have) or not np.array_equal(want["ids"][1], have["ids"][1]):
        raise ValueError(f"{directory}/golden.safetensors is of another text")
    for key in ("Xhat0", "logits"):
        difference = np.abs(want[key][1].astype(np.float64) - have[key][1]).max()
        if not difference <= 1e-5 * np.abs(want[key][1]).max():
            raise ValueError(f"{directory}: {key} differs by {difference:g}: flats.py and the golden file disagree")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("directory")
    options = parser.parse_args()
    for name in CASES:
        directory = os.path.join(options.directory, name)
        try:
            (check if options.check else write)(name, directory)
        except (ValueError, OSError) as error:
            sys.exit(f"flats.py: {name}: {error}")
        print("ok" if options.check else "written", directory)


if __name__ == "__main__":
    main()
