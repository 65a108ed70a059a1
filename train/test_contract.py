"""model.py against docs/model.md written out a second time, row by row in numpy, on every golden model.

It shares no code with model.py: no batches, no masks, no padding; a row at a time, as the equations read.
"""

import math
import os
import unittest

import numpy as np
import torch

import golden
import tensorfile

DIRECTORY = os.path.join(os.path.dirname(__file__), "..", "testdata", "golden")


class Reference:
    """The states and logits of one text."""

    def __init__(self, cfg, weights, ids):
        self.cfg, self.w = cfg, weights
        if cfg.flat:
            table = weights["model.embed_tokens.weight"]
            self.xhat = {0: self.stack("model.", cfg.stack, [table[id] for id in ids])}
            self.logits = np.array(self.xhat[0]) @ weights.get("lm_head.weight", table).T
            return
        embedded = [weights["encoder.embed_tokens.weight"][id] for id in ids]
        self.x = {0: self.stack("token_encoder.", cfg.token_encoder, embedded) if cfg.token_encoder else embedded}
        for l, level in enumerate(cfg.levels, 1):
            self.x[l] = self.encode(l, level)
        content = dict(self.x)  # of decoder l: [l-1]
        table = weights["encoder.embed_tokens.weight"]
        if cfg.content == "embedding":
            table = weights["decoder.embed_tokens.weight"]
            content[0] = [table[id] for id in ids]
        self.xhat = {}
        for l in range(len(cfg.levels), 0, -1):
            self.xhat[l - 1] = self.decode(l, cfg.levels[l - 1], content[l - 1], len(ids))
        self.logits = np.array(self.xhat[0]) @ weights.get("lm_head.weight", table).T

    def tokens(self, l):
        """How many tokens a unit of level l has."""
        return math.prod(level.chunk_size for level in self.cfg.levels[:l])

    def encode(self, l, level):
        at, below, c = f"levels.{l - 1}.", self.x[l - 1], level.chunk_size
        units = []
        for m in range(len(below) // c):
            unit = np.concatenate(below[m * c : (m + 1) * c])
            if level.chunker == "linear":
                unit = self.norm(unit, self.w[at + "chunker.norm.weight"])
                unit = self.w[at + "chunker.proj.weight"] @ unit + self.w[at + "chunker.proj.bias"]
            units.append(unit)
        return self.stack(at + "encoder.", level.encoder, units)

    def decode(self, l, level, content, tokens):
        """Xhat of level l-1, one row for each child that the text has, or has begun."""
        at, c, r = f"levels.{l - 1}.", level.chunk_size, level.prefix_length
        children = -(-tokens // self.tokens(l - 1))
        sequences, wanted = [[]], []  # of (row, children before what it predicts); which rows predict a child
        for m in range(-(-children // c)):
            if l < len(self.cfg.levels):
                condition = self.xhat[l][m]
            else:
                condition = self.x[l][m - 1] if m else self.w["start_latent"]
            converted = self.w[at + "converter.weight"] @ condition + self.w[at + "converter.bias"]
            if level.decoder.sliding_window == 0:
                sequences.append([])
            rows, own = sequences[-1], range(m * c, min(m * c + c, children))
            if r == 0:
                for u, slice_ in zip(own, converted.reshape(c, -1)):
                    wanted.append((len(sequences) - 1, len(rows)))
                    rows.append(((content[u - 1] if u > 0 else 0) + slice_, u))
            else:
                wanted += [(len(sequences) - 1, len(rows) + r - 1 + j) for j in range(len(own))]
                rows += [(prefix, m * c) for prefix in converted.reshape(r, -1)]
                rows += [(content[child], child + 1) for child in own if child < len(content)]
        states = []
        for rows in sequences:
            place = l - 1, [u for _, u in rows]
            states.append(self.stack(at + "decoder.", level.decoder, [x for x, _ in rows], place))
        return [states[sequence][i] for sequence, i in wanted]

    def remember(self, at, e, memory, n, x, level, before):
        """What entry e adds to row x of layer n, which predicts what follows `before` units of `level`."""
        own, of_layer = f"{at}memories.{e}.", f"{at}layers.{n}.memory_attn.{e}."
        tokens = before * self.tokens(level)
        seen = [self.w[own + "sink"]]
        for v, unit in enumerate(self.x[memory.level]):
            if (v + 1) * self.tokens(memory.level) <= tokens:
                seen += self.unpacked(own, memory.level, v) if memory.unpack else [unit]
        position = tokens // self.tokens(memory.level - memory.unpack)
        first = max(0, len(seen) - memory.sliding_window) if memory.sliding_window else 0
        q = self.w[of_layer + "q_proj.weight"] @ self.norm(x, self.w[of_layer + "norm.weight"])
        q = [self.rope(y, position, memory) for y in q.reshape(-1, memory.head_dim)]
        keys, values = [], []
        for i in range(first, len(seen)):
            h = self.norm(seen[i], self.w[own + "norm.weight"])
            k, v = self.w[own + "k_proj.weight"] @ h, self.w[own + "v_proj.weight"] @ h
            keys.append([self.rope(y, i, memory) for y in k.reshape(-1, memory.head_dim)])
            values.append(v.reshape(-1, memory.head_dim))
        return self.w[of_layer + "o_proj.weight"] @ self.mix(q, keys, values, memory)

    def unpacked(self, own, k, v):
        """Unit v of level k as an unpacked memory holds it: a row for each child."""
        said = (self.w[own + "unpack.weight"] @ self.x[k][v] + self.w[own + "unpack.bias"]).tolist()
        rows = []
        for child in range(v * self.cfg.levels[k - 1].chunk_size, (v + 1) * self.cfg.levels[k - 1].chunk_size):
            rows.append(np.array([x + said.pop(0) for x in self.x[k - 1][child]]))
        return rows

    def mix(self, q, keys, values, s):
        """Attention of a row: q [heads][head_dim], keys and values [rows][kv heads][head_dim] -> [heads * head_dim]."""
        mixed, group = [], s.num_attention_heads // s.num_key_value_heads
        for a in range(s.num_attention_heads):
            scores = np.array([q[a] @ k[a // group] for k in keys]) / s.head_dim**0.5
            share = np.exp(scores - scores.max())
            share /= share.sum()
            mixed.append(sum(p * v[a // group] for p, v in zip(share, values)))
        return np.concatenate(mixed)

    def stack(self, at, s, rows, place=None):
        """`place` of a decoder: the level of what its rows predict, and how many units of it are before each row's."""
        for n in range(s.num_hidden_layers):
            layer = f"{at}layers.{n}."
            w = {key: self.w[f"{layer}self_attn.{key}_proj.weight"] for key in "qkvo"}
            w.update({key: self.w[f"{layer}mlp.{key}_proj.weight"] for key in ("gate", "up", "down")})
            window = s.sliding_window[n] if isinstance(s.sliding_window, list) else s.sliding_window
            for e, memory in enumerate(s.memories if place else ()):
                if n in memory.layers:
                    rows = [x + self.remember(at, e, memory, n, x, place[0], u) for x, u in zip(rows, place[1])]
            keys, values, out = [], [], []
            for i, x in enumerate(rows):
                h = self.norm(x, self.w[layer + "input_layernorm.weight"])
                q = [self.rope(y, i, s) for y in (w["q"] @ h).reshape(-1, s.head_dim)]
                keys.append([self.rope(y, i, s) for y in (w["k"] @ h).reshape(-1, s.head_dim)])
                values.append((w["v"] @ h).reshape(-1, s.head_dim))
                first = max(0, i - window + 1) if window else 0
                x = x + w["o"] @ self.mix(q, keys[first:], values[first:], s)
                h = self.norm(x, self.w[layer + "post_attention_layernorm.weight"])
                gate = w["gate"] @ h
                out.append(x + w["down"] @ (gate / (1 + np.exp(-gate)) * (w["up"] @ h)))
            rows = out
        return [self.norm(x, self.w[at + "norm.weight"]) for x in rows]

    def norm(self, x, weight):
        return x / np.sqrt(np.mean(x * x) + self.cfg.rms_norm_eps) * weight

    def rope(self, x, position, s):
        if s.rope_theta == 0:
            return x
        half = s.head_dim // 2
        out = x.copy()
        for i in range(half):
            angle = position * s.rope_theta ** (-2 * i / s.head_dim)
            out[i] = x[i] * np.cos(angle) - x[i + half] * np.sin(angle)
            out[i + half] = x[i + half] * np.cos(angle) + x[i] * np.sin(angle)
        return out


class Contract(unittest.TestCase):
    def test_golden_models(self):
        for name in sorted(golden.CASES):
            directory = os.path.join(DIRECTORY, name)
            cfg = golden.photon.Config.from_file(os.path.join(directory, "config.json"))
            stored = tensorfile.read_model(directory)
            want = {key: x for key, (_, x) in tensorfile.read(os.path.join(directory, "golden.safetensors")).items()}
            ids = want["ids"].tolist()
            reference = Reference(cfg, tensorfile.values(stored), ids)
            have = {"logits": reference.logits}
            have.update({f"Xhat{l}": x for l, x in reference.xhat.items()})
            have.update({f"X{l}": x for l, x in getattr(reference, "x", {}).items() if l or cfg.token_encoder})
            self.assertEqual(set(have), {key for key in want if key[0] == "X" or key == "logits"})
            with torch.no_grad():
                model = golden.load(cfg, stored)
                double = {key: x[0].numpy() for key, x in model.states(torch.tensor([ids])).items()}
                double["logits"] = model(torch.tensor([ids]))[0].numpy()
            for key, x in have.items():
                with self.subTest(model=name, states=key):
                    x = np.array(x)
                    self.assertEqual(x.shape, want[key].shape)
                    self.assertLess(np.abs(x - want[key]).max(), 1e-6 * np.abs(x).max())
                    self.assertLess(np.abs(x - double[key]).max(), 1e-12 * np.abs(x).max())


if __name__ == "__main__":
    unittest.main()
