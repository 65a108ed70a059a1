"""model.py against the model contract written out a second time, row by row in numpy, on every golden model.

It shares no code with model.py: no batches, no masks, no padding; a row at a time, as the equations read.
"""

import os
import unittest

import numpy as np

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
        self.x = {0: [weights["encoder.embed_tokens.weight"][id] for id in ids]}
        for l, level in enumerate(cfg.levels, 1):
            self.x[l] = self.encode(l, level)
        self.xhat = {}
        for l in range(len(cfg.levels), 0, -1):
            self.xhat[l - 1] = self.decode(l, cfg.levels[l - 1], ids)
        head = weights.get("lm_head.weight", weights["decoder.embed_tokens.weight"])
        self.logits = np.array(self.xhat[0]) @ head.T

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

    def decode(self, l, level, ids):
        """Xhat of level l-1, one row for each child that the text has, or has begun."""
        at, c, r = f"levels.{l - 1}.", level.chunk_size, level.prefix_length
        children = len(ids)
        for below in self.cfg.levels[: l - 1]:
            children = -(-children // below.chunk_size)
        content = self.x[l - 1] if l > 1 else [self.w["decoder.embed_tokens.weight"][id] for id in ids]
        out, stream = [], []
        for m in range(-(-children // c)):
            if l < len(self.cfg.levels):
                condition = self.xhat[l][m]
            else:
                condition = self.x[l][m - 1] if m else self.w["start_latent"]
            prefix = self.w[at + "converter.weight"] @ condition + self.w[at + "converter.bias"]
            rows = list(prefix.reshape(r, -1)) + content[m * c : (m + 1) * c]
            wanted = range(r - 1, r - 1 + min(c, children - m * c))
            if level.decoder.sliding_window:
                out += [len(stream) + i for i in wanted]
                stream += rows
            else:
                states = self.stack(at + "decoder.", level.decoder, rows)
                out += [states[i] for i in wanted]
        if level.decoder.sliding_window:
            states = self.stack(at + "decoder.", level.decoder, stream)
            out = [states[i] for i in out]
        return out

    def stack(self, at, s, rows):
        for n in range(s.num_hidden_layers):
            layer = f"{at}layers.{n}."
            w = {key: self.w[f"{layer}self_attn.{key}_proj.weight"] for key in "qkvo"}
            w.update({key: self.w[f"{layer}mlp.{key}_proj.weight"] for key in ("gate", "up", "down")})
            keys, values, group = [], [], s.num_attention_heads // s.num_key_value_heads
            for i in range(len(rows)):
                h = self.norm(rows[i], self.w[layer + "input_layernorm.weight"])
                q = [self.rope(x, i, s) for x in (w["q"] @ h).reshape(-1, s.head_dim)]
                keys.append([self.rope(x, i, s) for x in (w["k"] @ h).reshape(-1, s.head_dim)])
                values.append((w["v"] @ h).reshape(-1, s.head_dim))
                first = max(0, i - s.sliding_window + 1) if s.sliding_window else 0
                mixed = []
                for a in range(s.num_attention_heads):
                    scores = np.array([q[a] @ keys[j][a // group] for j in range(first, i + 1)]) / s.head_dim**0.5
                    share = np.exp(scores - scores.max())
                    share /= share.sum()
                    mixed.append(sum(p * values[j][a // group] for p, j in zip(share, range(first, i + 1))))
                x = rows[i] + w["o"] @ np.concatenate(mixed)
                h = self.norm(x, self.w[layer + "post_attention_layernorm.weight"])
                gate = w["gate"] @ h
                rows = rows[:i] + [x + w["down"] @ (gate / (1 + np.exp(-gate)) * (w["up"] @ h))] + rows[i + 1 :]
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
            weights = tensorfile.values(tensorfile.read_model(directory))
            want = {key: x for key, (_, x) in tensorfile.read(os.path.join(directory, "golden.safetensors")).items()}
            reference = Reference(cfg, weights, want["ids"].tolist())
            have = {"logits": reference.logits}
            have.update({f"Xhat{l}": x for l, x in reference.xhat.items()})
            have.update({f"X{l}": x for l, x in getattr(reference, "x", {}).items() if l})
            self.assertEqual(set(have), {key for key in want if key[0] == "X" or key == "logits"})
            for key, x in have.items():
                with self.subTest(model=name, states=key):
                    x = np.array(x)
                    self.assertEqual(x.shape, want[key].shape)
                    self.assertLess(np.abs(x - want[key]).max(), 1e-6 * np.abs(x).max())


if __name__ == "__main__":
    unittest.main()
