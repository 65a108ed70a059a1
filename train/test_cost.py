"""cost.py against hand counts and against what model.py multiplies; shapes.py holds what it says."""

import unittest
from dataclasses import replace
from unittest import mock

import torch
from torch import nn

import cost
import golden
import model as photon
import shapes
from golden import decoder, level, memory, stack


class Meter:
    """Multiply-adds that a model does, decoders ("down") and all else ("up"); every matrix and every score counts."""

    def __init__(self, model):
        self.model, self.side, self.work = model, "up", {"up": 0, "down": 0}
        for name, module in model.named_modules():
            if isinstance(module, photon.Decoder):
                module.register_forward_pre_hook(lambda *_: self.turn("down"))
                module.register_forward_hook(lambda *_: self.turn("up"))
            if isinstance(module, nn.Linear):
                side = "down" if name.endswith("converter") else None
                module.register_forward_hook(lambda m, i, o, side=side: self.add(i[0].shape[0] * i[0].shape[1] * m.weight.numel(), side))

    def turn(self, side):
        self.side = side

    def add(self, work, side=None):
        self.work[side or self.side] += work

    def attention(self, q, k, v, window):
        b, h, n, d = q.shape
        self.add(b * h * 2 * d * sum(min(i + 1, window or n) for i in range(n)))
        return plain_attention(q, k, v, window)

    def memory_attention(self, q, k, v, seen, window):
        b, h, _, d = q.shape
        self.add(b * h * 2 * d * sum(min(s + 1, window or s + 1) for s in seen.tolist()))
        return plain_memory(q, k, v, seen, window)

    @torch.no_grad()
    def measure(self, tokens):
        self.work = {"up": 0, "down": 0}
        with mock.patch.multiple(photon, attention=self.attention, memory_attention=self.memory_attention):
            self.model.hidden(torch.zeros(1, tokens, dtype=torch.long))
        return self.work


plain_attention, plain_memory = photon.attention, photon.memory_attention


class Cost(unittest.TestCase):
    def test_flat_by_hand(self):
        cfg = photon.Config(vocab_size=100, tie_word_embeddings=True, stack=stack(8, 20, heads=4, kv=1, dim=2, layers=2, window=[0, 5]))
        layer = 8 * 8 + 8 * 2 + 8 * 2 + 8 * 8 + 3 * 8 * 20  # q, k, v, o, feed-forward
        near, far = cost.count(cfg), cost.count(cfg, 1000)
        self.assertEqual(near, {"parameters": 100 * 8 + 2 * (layer + 16) + 8, "decode": 2 * layer + 800, "prefill": 8 * 4, "growth": 4})
        swapped = cost.count(replace(cfg, stack=replace(cfg.stack, sliding_window=[5, 0])), 1000)  # the layer below runs whole
        self.assertEqual(swapped["prefill"], layer + 2 * 8 * 5 + 8 * 4)
        self.assertEqual(far["decode"] - near["decode"], 2 * 8 * (1000 + 5))

    def test_one_level_by_hand(self):
        read = memory(1, [1], heads=3, kv=1, dim=2, unpack=True)
        cfg = photon.Config(vocab_size=100, embedding_size=8, content="states", token_encoder=stack(8, 12, 2, 2, 4, window=6),
                            levels=[level(4, 0, "linear", stack(12, 16, 2, 1, 4, window=9),
                                          decoder(8, 20, 2, 1, 4, layers=2, window=5, memories=[read]))])
        tokens = 4 * 64 + 3 * 96
        unit = 32 * 12 + (2 * 96 + 2 * 48 + 3 * 192)  # chunker, encoder
        rows = 8 * 4  # of M, a token: its share of the map of its unit is 8 outputs of 12 inputs; key and value
        convert, layer, look = 12 * 8, 2 * 64 + 2 * 32 + 3 * 160, 2 * 48 + 2 * 6  # the sink is looked at
        up = tokens + unit / 4 + 8 * 12 + rows
        near = cost.count(cfg)
        self.assertEqual(near["prefill"], up)
        self.assertEqual(near["decode"], up + convert + 2 * layer + look + 800)
        self.assertEqual(near["growth"], 2 * 2)
        self.assertEqual(cost.count(cfg, 1000)["decode"] - near["decode"], 2 * 8 * 6 + 2 * 8 * 9 / 4 + 2 * (2 * 8 * 5) + 2 * 6 * 1000)

    def test_models_do_what_is_counted(self):
        for name, case in golden.CASES.items():
            cfg = case.config
            meter, meta = Meter(photon.build(cfg)), cfg.meta_context
            before = 960 // meta * meta
            less, more = meter.measure(before), meter.measure(before + 4 * meta)
            up, down = ((more[side] - less[side]) / (4 * meta) for side in ("up", "down"))
            head = cfg.vocab_size * (cfg.stack or cfg.levels[0].decoder).hidden_size
            counted, bare = cost.count(cfg, before + 2 * meta), cost.count(cfg)
            # A row's look at itself, and memories that end with a unit, are not counted: a little of what depth adds.
            slack = 0.05 * (counted["decode"] - bare["decode"]) + 1
            with self.subTest(model=name):
                self.assertAlmostEqual(counted["decode"], up + down + head, delta=slack)
                unbounded = [l.stream and 0 in l.decoder.windows for l in cfg.levels]
                if not cfg.flat and not any(unbounded):
                    self.assertAlmostEqual(counted["prefill"], up, delta=slack)
                self.assertLess(counted["prefill"], up + down + slack)
                self.assertEqual(counted["parameters"], photon.count_parameters(meter.model))
                self.assertLess(bare["decode"], counted["parameters"] + head)

    def test_a_prompt_runs_unbounded_decoders_and_those_above(self):
        def prefill(first, second):
            return cost.count(photon.Config(vocab_size=61, embedding_size=12, levels=[
                level(4, 1, "linear", stack(24, 32, 4, 4, 6), decoder(20, 28, 2, 2, 8, window=first)),
                level(4, 0, "linear", stack(20, 36, 2, 2, 10), decoder(24, 28, 3, 3, 8, window=second))]))

        none, upper, lower = prefill(9, 9), prefill(9, [0]), prefill([0], 9)
        head = 61 * 20
        self.assertLess(none["prefill"], upper["prefill"])
        self.assertLess(upper["prefill"], lower["prefill"])
        # Of the one layer of the lower decoder, 5 rows to 4 tokens, only keys and values.
        one = lower["decode"] - head - lower["prefill"]
        self.assertEqual(one, 5 / 4 * 20 * (2 * 16 + 3 * 28))
        encoders = 48 / 4 + 40 / 16
        self.assertEqual([none["growth"], upper["growth"], lower["growth"]], [encoders, encoders + 48 / 4, encoders + 5 * 32 / 4])


class Shapes(unittest.TestCase):
    def test_they_cost_what_the_flat_model_costs(self):
        for name in shapes.SHAPES:
            flat = cost.count(shapes.config("flat-60m" if name.endswith("-60m") else "flat"))
            with self.subTest(shape=name):
                self.assertLess(cost.count(shapes.config(name))["decode"], 1.07 * flat["decode"])
                self.assertEqual(shapes.config(name).vocab_size, 4096)

    def test_names_are_told_apart(self):
        known = [shapes.config(name).to_dict() for name in shapes.SHAPES]
        self.assertEqual([known.count(cfg) for cfg in known], [1] * len(known))
        with self.assertRaisesRegex(ValueError, "no shape is called 'flatt'"):
            shapes.config("flatt")


if __name__ == "__main__":
    unittest.main()
