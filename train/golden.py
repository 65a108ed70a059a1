"""Golden vectors: tiny random models with every level's states and logits, computed in float64.

testdata/golden/NAME/ holds a model directory (config.json, model.safetensors or shards) and golden.safetensors:

ids             I32 [T]         the text
X0              F32 [T, d]      states of the token encoder, where there is one
X1, X2, ...     F32 [units, D]  encoder states of the whole units
Xhat0, ...      F32 [rows, W]   decoder outputs; Xhat0 one a token, above also for the unit that the text has begun
logits          F32 [T, vocab]  row i predicts token i (flat: token i+1)

of some, a greedy continuation:

prompt          I32 [P]         whole meta-contexts
hiergen_tokens  I32 [n]         exact generation after the prompt

and of those that RecGen can run:

recgen_tokens   I32 [n]         RecGen after the prompt
recgen_logits   F32 [n, vocab]  what each RecGen token was chosen from
ragged_prompt   I32 [Q]         ends inside a meta-context
ragged_tokens   I32 [n]         RecGen after it: exact to the end of the meta-context, then as RecGen

The reference is computed from the weights as stored, that is after rounding to their dtype. Random numbers are
uniform draws of numpy's RandomState, scaled: the same on every machine and with every version of torch.

    python3 golden.py DIR            writes them
    python3 golden.py --check DIR    computes them afresh and compares
"""

import argparse
import json
import os
import sys
import tempfile
import zlib

import numpy as np
import torch

import model as photon
import tensorfile
import tensors


def stack(hidden, ffn, heads, kv, dim, layers=1, window=0, theta=10000.0):
    return photon.StackConfig(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
                              head_dim=dim, intermediate_size=ffn, sliding_window=window, rope_theta=theta)


def decoder(*args, memories=(), **kwargs):
    return photon.DecoderConfig(**vars(stack(*args, **kwargs)), memories=list(memories))


def memory(level, layers, heads, kv, dim, window=0, theta=0.0, unpack=False):
    return photon.MemoryConfig(level=level, layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
                               head_dim=dim, sliding_window=window, rope_theta=theta, unpack=unpack)


def level(chunk, prefix, chunker, encoder, decoder):
    return photon.LevelConfig(chunk_size=chunk, prefix_length=prefix, chunker=chunker, encoder=encoder, decoder=decoder)


class Case:
    """A model, the length of its text, how its weights are stored, and whether its continuations are recorded."""

    def __init__(self, config, length, form, keep="F32", shards=1, generate=False, seed=0):
        self.config, self.length, self.form, self.keep = config, length, form, keep
        self.shards, self.generate, self.seed = shards, generate, seed


CASES = {
    "flat-gqa-f32": Case(photon.Config(
        vocab_size=61, bos_token_id=1, eos_token_id=2,
        stack=stack(24, 52, heads=4, kv=2, dim=8, layers=2)), 71, "F32"),
    "flat-tied-f16": Case(photon.Config(
        vocab_size=97, tie_word_embeddings=True, rms_norm_eps=1e-6, eos_token_id=[3, 5],
        stack=stack(40, 68, heads=3, kv=1, dim=10, layers=2, theta=500.0)), 64, "F16"),
    "block-f32": Case(photon.Config(
        vocab_size=61, embedding_size=6, eos_token_id=0,
        levels=[level(4, 2, "concat", stack(24, 44, 4, 4, 6, layers=2), stack(20, 36, 2, 2, 10))]), 61, "F32"),
    "block-linear-stream-bf16": Case(photon.Config(
        vocab_size=73, embedding_size=10,
        levels=[level(3, 1, "linear", stack(28, 44, 2, 1, 16, layers=2, window=5), stack(24, 40, 4, 2, 8, layers=2, window=9))]),
        83, "BF16"),
    "photon-local-f32": Case(photon.Config(
        vocab_size=61, embedding_size=6, eos_token_id=2,
        levels=[level(4, 2, "concat", stack(24, 32, 4, 4, 6), stack(20, 28, 2, 2, 8)),
                level(4, 2, "linear", stack(20, 36, 2, 2, 10), stack(24, 28, 3, 3, 8))]), 77, "F32", generate=True, seed=1),
    "photon-stream-bf16": Case(photon.Config(
        vocab_size=61, embedding_size=12,
        levels=[level(2, 2, "concat", stack(24, 52, 4, 2, 8, window=6), stack(40, 52, 5, 1, 8, window=11)),
                level(3, 1, "linear", stack(28, 44, 2, 1, 16, window=4), stack(24, 36, 4, 2, 6, layers=2, window=7))]), 85, "BF16"),
    "stream-below-local-f16": Case(photon.Config(
        vocab_size=61, embedding_size=9,
        levels=[level(3, 4, "linear", stack(24, 36, 4, 2, 6, window=8), stack(20, 44, 2, 2, 10, layers=2, window=7)),
                level(2, 1, "concat", stack(48, 52, 3, 1, 16), stack(24, 28, 4, 1, 8, layers=2))]), 85, "F16"),
    "local-below-stream-nope-tied-f32": Case(photon.Config(
        vocab_size=61, embedding_size=8, tie_word_embeddings=True,
        levels=[level(2, 1, "concat", stack(16, 28, 2, 2, 8, window=3), stack(24, 28, 3, 1, 8, layers=2)),
                level(4, 4, "linear", stack(20, 32, 2, 1, 10, theta=0.0), stack(16, 28, 2, 2, 6, window=17))]), 75, "F32"),
    "three-local-bf16": Case(photon.Config(
        vocab_size=61, embedding_size=5, eos_token_id=60,
        levels=[level(4, 1, "concat", stack(20, 28, 2, 2, 10, window=7), stack(24, 36, 4, 2, 6, layers=2)),
                level(2, 4, "concat", stack(40, 28, 4, 1, 10), stack(20, 28, 3, 1, 8)),
                level(3, 2, "linear", stack(24, 36, 2, 2, 16), stack(40, 28, 5, 5, 6))]), 77, "BF16", generate=True),
    "three-stream-nope-i8": Case(photon.Config(
        vocab_size=61, embedding_size=40,
        levels=[level(2, 2, "linear", stack(24, 52, 4, 2, 8, window=6), stack(40, 52, 3, 1, 10, layers=2, window=8)),
                level(2, 1, "concat", stack(48, 52, 2, 2, 16, window=3), stack(24, 44, 4, 4, 6, window=5)),
                level(2, 2, "linear", stack(36, 40, 3, 1, 10, theta=0.0), stack(48, 36, 2, 1, 16, window=4))]), 83, "I8"),
    "photon-local-i8": Case(photon.Config(
        vocab_size=61, embedding_size=10,
        levels=[level(4, 2, "concat", stack(40, 68, 5, 5, 8), stack(36, 52, 4, 2, 10, layers=2)),
                level(3, 2, "linear", stack(34, 52, 2, 2, 16), stack(40, 52, 3, 1, 10, layers=2))]), 67, "I8", keep="BF16"),
    "photon-shards-bf16": Case(photon.Config(
        vocab_size=61, embedding_size=12,
        levels=[level(2, 4, "concat", stack(24, 52, 4, 2, 8), stack(28, 44, 2, 1, 10, layers=2, window=13)),
                level(2, 1, "linear", stack(32, 36, 2, 1, 16, layers=2), stack(24, 28, 4, 4, 6))]), 67, "BF16", shards=3),
    # format 2
    "flat-ministral-bf16": Case(photon.Config(
        vocab_size=61, bos_token_id=1, eos_token_id=2,
        stack=stack(24, 52, heads=4, kv=2, dim=8, layers=3, window=[7, 0, 7])), 71, "BF16"),
    "flat-mistral-f32": Case(photon.Config(
        vocab_size=61, eos_token_id=2, tie_word_embeddings=True,
        stack=stack(24, 44, heads=3, kv=3, dim=8, layers=2, window=9)), 71, "F32"),
    "token-encoder-local-f32": Case(photon.Config(
        vocab_size=61, embedding_size=6, eos_token_id=2, token_encoder=stack(6, 20, 2, 1, 4, window=5),
        levels=[level(4, 2, "concat", stack(24, 32, 4, 4, 6), stack(20, 28, 2, 2, 8)),
                level(4, 2, "linear", stack(20, 36, 2, 2, 10), stack(24, 28, 3, 3, 8))]), 77, "F32", generate=True),
    "memory0-added-stream-f32": Case(photon.Config(
        vocab_size=61, embedding_size=20, eos_token_id=2, content="states",
        token_encoder=stack(20, 28, 2, 2, 8, layers=2, window=[6, 3]),
        levels=[level(4, 0, "linear", stack(24, 32, 4, 2, 6, layers=2, window=[9, 0]),
                      decoder(20, 36, 4, 2, 6, layers=2, window=[4, 11], memories=[memory(0, [1], 6, 2, 4)]))]),
        83, "F32", generate=True),
    "memory1-added-local-tied-bf16": Case(photon.Config(
        vocab_size=61, embedding_size=24, eos_token_id=60, tie_word_embeddings=True, content="states",
        token_encoder=stack(24, 36, 3, 1, 8, window=7),
        levels=[level(4, 0, "linear", stack(28, 44, 2, 1, 16),
                      decoder(24, 36, 4, 1, 6, layers=2, memories=[memory(1, [0, 1], 4, 1, 8)])),
                level(3, 0, "linear", stack(20, 36, 2, 2, 10),
                      decoder(28, 28, 3, 3, 8, memories=[memory(2, [0], 2, 1, 6)]))]), 85, "BF16", generate=True),
    "memory2-prefix-local-f16": Case(photon.Config(
        vocab_size=61, embedding_size=6,
        levels=[level(4, 2, "concat", stack(24, 36, 4, 2, 6),
                      decoder(20, 44, 2, 2, 10, layers=2, memories=[memory(2, [1], 4, 4, 6)])),
                level(2, 3, "linear", stack(28, 36, 2, 1, 16),
                      decoder(24, 28, 4, 1, 8, memories=[memory(1, [0], 3, 1, 10, window=6)]))]),
        77, "F16", generate=True),
    "memory-window-rope-stream-bf16": Case(photon.Config(
        vocab_size=73, embedding_size=10,
        levels=[level(3, 1, "linear", stack(28, 44, 2, 1, 16, window=5),
                      decoder(24, 40, 4, 2, 8, layers=3, window=9,
                              memories=[memory(1, [0, 2], 4, 2, 6, window=4, theta=100.0),
                                        memory(0, [0, 1], 3, 1, 8, window=7, theta=10000.0)])),
                level(2, 0, "concat", stack(56, 44, 3, 3, 10),
                      decoder(28, 36, 2, 2, 6, layers=2, window=[0, 0],
                              memories=[memory(2, [1], 2, 2, 8, theta=500.0)]))]),
        83, "BF16", generate=True),
    "memory-states-bare-i8": Case(photon.Config(
        vocab_size=61, embedding_size=36, content="states",
        levels=[level(2, 1, "linear", stack(40, 52, 5, 5, 8, window=[3]),
                      decoder(36, 52, 4, 2, 10, window=[13],
                              memories=[memory(0, [0], 4, 2, 10), memory(2, [0], 3, 3, 12, theta=10000.0)])),
                level(3, 2, "linear", stack(34, 52, 2, 2, 16), stack(40, 52, 3, 1, 10, layers=2))]),
        67, "I8", keep="BF16"),
    "three-memory-bf16": Case(photon.Config(
        vocab_size=61, embedding_size=5,
        levels=[level(4, 0, "concat", stack(20, 28, 2, 2, 10, window=7),
                      decoder(24, 36, 4, 2, 6, layers=2, window=[0, 5],
                              memories=[memory(3, [0], 2, 1, 6), memory(1, [1], 3, 3, 4, window=5, theta=10.0)])),
                level(2, 4, "concat", stack(40, 28, 4, 1, 10),
                      decoder(20, 28, 3, 1, 8, memories=[memory(3, [0], 2, 2, 8, window=2)])),
                level(3, 0, "linear", stack(24, 36, 2, 2, 16),
                      decoder(40, 28, 5, 5, 6, memories=[memory(2, [0], 4, 2, 6)]))]), 101, "BF16"),
    "unpack1-added-stream-tied-f32": Case(photon.Config(
        vocab_size=61, embedding_size=24, eos_token_id=60, tie_word_embeddings=True, content="states",
        token_encoder=stack(24, 20, 4, 2, 6, layers=2, window=9),
        levels=[level(4, 0, "linear", stack(20, 36, 3, 3, 8, layers=2, window=5),
                      decoder(24, 36, 4, 4, 6, layers=3, window=7,
                              memories=[memory(1, [2], 4, 1, 8, theta=10000.0, unpack=True)]))]),
        83, "F32", generate=True),
    "unpack2-prefix-local-f16": Case(photon.Config(
        vocab_size=61, embedding_size=6, eos_token_id=2,
        levels=[level(2, 2, "linear", stack(28, 36, 4, 2, 6),
                      decoder(20, 44, 2, 2, 10, layers=2,
                              memories=[memory(2, [0, 1], 4, 2, 6, window=7, theta=100.0, unpack=True)])),
                level(3, 1, "linear", stack(24, 36, 2, 1, 16),
                      decoder(28, 28, 4, 1, 8, memories=[memory(2, [0], 3, 3, 4, window=5, unpack=True)]))]),
        77, "F16", generate=True),
    "three-unpack-bf16": Case(photon.Config(
        vocab_size=61, embedding_size=5,
        levels=[level(3, 1, "linear", stack(20, 28, 2, 2, 10, window=7),
                      decoder(24, 36, 4, 2, 6, layers=2, window=[0, 5],
                              memories=[memory(3, [1], 4, 2, 8, theta=500.0, unpack=True), memory(0, [0, 1], 3, 1, 4),
                                        memory(1, [0], 2, 1, 6, theta=10.0, unpack=True)])),
                level(2, 0, "concat", stack(40, 28, 4, 1, 10),
                      decoder(20, 28, 3, 1, 8, memories=[memory(3, [0], 2, 2, 8, window=4, theta=50.0, unpack=True),
                                                         memory(2, [0], 2, 1, 4, unpack=True)])),
                level(4, 0, "linear", stack(24, 36, 2, 2, 16),
                      decoder(40, 28, 5, 5, 6, memories=[memory(3, [0], 4, 2, 6, theta=10000.0, unpack=True)]))]),
        125, "BF16"),
}


# --- weights ----------------------------------------------------------------------------------


def random_weights(cfg, seed):
    """{name: float64 array}: no value is an initialiser's zero or one, and attention is far from uniform."""
    return {name: _draw(name, shape, cfg, seed) for name, shape in tensors.shapes(cfg).items()}


def _draw(name, shape, cfg, seed):
    numbers = np.random.RandomState(zlib.crc32(f"{seed} {name}".encode()))
    if name.endswith("norm.weight"):
        return numbers.uniform(0.5, 1.5, shape)
    if name.endswith(".bias"):
        return _spread(numbers, shape, 0.3)
    head = "encoder." if cfg.content == "states" else ("decoder.", "model.")
    if "embed_tokens" in name and cfg.tie_word_embeddings and name.startswith(head):
        return _spread(numbers, shape, 2.5 * shape[1] ** -0.5)
    if "embed_tokens" in name or name == "start_latent" or name.endswith(".sink"):
        return _spread(numbers, shape, 1.0)
    gain = {"q_proj": 1.6, "k_proj": 1.6, "lm_head": 2.5}.get(name.split(".")[-2], 1.1)
    return _spread(numbers, shape, gain * shape[1] ** -0.5)


def _spread(numbers, shape, deviation):
    """Uniform around zero with the given standard deviation."""
    limit = deviation * 3**0.5
    return numbers.uniform(-limit, limit, shape)


def load(cfg, stored):
    """The float64 model of weights as stored ({name: (dtype, array)})."""
    model = photon.build(cfg).double()
    model.load_state_dict({name: torch.from_numpy(x) for name, x in tensorfile.values(stored).items()})
    return model.eval()


# --- generation -------------------------------------------------------------------------------


def choose(logits):
    """The greedy token of each row; refuses a row so nearly tied that float32 could choose otherwise."""
    best = logits.topk(2, dim=-1).values
    if (best[..., 0] - best[..., 1]).min() < 2e-4 * logits.abs().max():
        raise ValueError("a greedy choice is nearly tied: give the model another seed")
    return logits.argmax(-1)


def hiergen(model, ids, steps):
    """Exact greedy generation, one whole pass a token. Row i predicts token i, so a dummy stands where the new one will."""
    ids = list(ids)
    for _ in range(steps):
        logits = model(torch.tensor([ids + [0]]))[0, len(ids)]
        ids.append(int(choose(logits)))
    return ids[len(ids) - steps :]


def recgen(model, ids, metas):
    """Greedy RecGen of `metas` meta-contexts: tokens and the logits that each was chosen from.

    The top encoder sees the true states of the prompt; from then on it sees what the top decoder predicted.
    """
    top = model.levels[-1]
    below = model.states(torch.tensor([ids])).get(f"X{len(model.levels) - 1}")
    units = top.chunker(below.reshape(1, -1, top.chunk * below.shape[-1]))
    tokens, logits = [], []
    for _ in range(metas):
        condition = top.encoder(units)[:, -1]
        children = decode_freely(top, condition)
        unit = children.reshape(1, 1, -1)
        for level in reversed(model.levels[1:-1]):
            children = decode_freely(level, children)
        new_tokens, new_logits = decode_tokens(model, children)
        tokens += new_tokens.tolist()
        logits.append(new_logits)
        units = torch.cat((units, top.chunker(unit)), dim=1)
    return tokens, torch.cat(logits)


def decode_freely(level, condition):
    """condition [n, D] -> the children [n*C, W], each fed back as the content of the next."""
    rows = _prefix(level, condition)
    for _ in range(level.chunk):
        rows = torch.cat((rows, level.decoder(rows)[:, -1:]), dim=1)
    return rows[:, level.prefix :].flatten(0, 1)


def decode_tokens(model, condition):
    """condition [n, D_1] -> tokens [n*C_1] and their logits; the n units side by side."""
    level = model.levels[0]
    rows, tokens, logits = _prefix(level, condition), [], []
    for _ in range(level.chunk):
        logits.append(model.project(level.decoder(rows)[:, -1]))
        tokens.append(choose(logits[-1]))
        rows = torch.cat((rows, model.decoder(tokens[-1])[:, None]), dim=1)
    return torch.stack(tokens, 1).flatten(), torch.stack(logits, 1).flatten(0, 1)


def _prefix(level, condition):
    return level.converter(condition).unflatten(-1, (level.prefix, -1))


# --- files ------------------------------------------------------------------------------------


@torch.no_grad()
def compute(name):
    """The config, the stored tensors and the reference {name: (dtype, array)} of a case."""
    case = CASES[name]
    cfg = photon.Config.from_dict(case.config.to_dict())
    stored = tensorfile.store(random_weights(cfg, f"{name} {case.seed}"), case.form, case.keep)
    model = load(cfg, stored)
    numbers = np.random.RandomState(zlib.crc32(f"ids {name}".encode()))
    ids = numbers.randint(0, cfg.vocab_size, case.length).tolist()

    reference = {"ids": ids}
    batch = torch.tensor([ids])
    reference.update({key: x[0] for key, x in model.states(batch).items()})
    reference["logits"] = model(batch)[0]
    if case.generate:
        meta = cfg.meta_context
        prompt = ids[: len(ids) // meta * meta]
        reference["prompt"] = prompt
        reference["hiergen_tokens"] = hiergen(model, prompt, 3 * meta)
    if case.generate and not cfg.news():
        reference["recgen_tokens"], reference["recgen_logits"] = recgen(model, prompt, 3)
        cut = meta // 3 + 1
        ragged = prompt[:-cut]
        rest = hiergen(model, ragged, cut)
        reference["ragged_prompt"] = ragged
        reference["ragged_tokens"] = rest + recgen(model, ragged + rest, 2)[0]
    return cfg, stored, {key: _plain(x) for key, x in reference.items()}


def _plain(x):
    if isinstance(x, list):
        return "I32", np.array(x, "<i4")
    return "F32", np.ascontiguousarray(x.numpy().astype("<f4"))


def write(name, directory):
    cfg, stored, reference = compute(name)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump(cfg.to_dict(), file, indent=1)
        file.write("\n")
    tensorfile.write_model(directory, stored, CASES[name].shards)
    tensorfile.write(os.path.join(directory, "golden.safetensors"), reference)


def check(name, directory):
    """Raises unless the directory holds what `compute` gives: weights to the bit, references to 1e-5 of the largest value."""
    with tempfile.TemporaryDirectory() as fresh:
        write(name, fresh)
        if sorted(os.listdir(fresh)) != sorted(os.listdir(directory)):
            raise ValueError(f"{directory}: holds {sorted(os.listdir(directory))}, want {sorted(os.listdir(fresh))}")
        for file in os.listdir(fresh):
            if file != "golden.safetensors" and _bytes(fresh, file) != _bytes(directory, file):
                raise ValueError(f"{directory}/{file}: differs from a fresh one: run golden.py to write it again")
        want = tensorfile.read(os.path.join(fresh, "golden.safetensors"))
        have = tensorfile.read(os.path.join(directory, "golden.safetensors"))
    if list(want) != list(have):
        raise ValueError(f"{directory}/golden.safetensors: holds {list(have)}, want {list(want)}")
    for key, (dtype, x) in want.items():
        y = have[key][1]
        if have[key][0] != dtype or x.shape != y.shape:
            raise ValueError(f"{directory}: {key} is {have[key][0]} {y.shape}, want {dtype} {x.shape}")
        difference = np.abs(x.astype(np.float64) - y).max()
        if not difference <= (0 if dtype == "I32" else 1e-5 * np.abs(x).max()):
            raise ValueError(f"{directory}: {key} differs by {difference:g}: model.py and the golden file disagree")


def _bytes(directory, file):
    with open(os.path.join(directory, file), "rb") as opened:
        return opened.read()


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
            sys.exit(f"golden.py: {name}: {error}")
        print("ok" if options.check else "written", directory)


if __name__ == "__main__":
    main()
