"""probe.py on tiny models: gains, worths and means that are known beforehand."""

import copy
import json
import os
import tempfile
import unittest
from unittest import mock

import torch

import bpe
import data
import evaluate
import fast
import golden
import model as photon
import probe
from golden import decoder, level, memory, stack

VOCAB = 257  # the bytes and <|endoftext|>
PIECE, PIECES = 400, 5


def build(**more):
    """A model whose weights make everything matter."""
    cfg = photon.Config.from_dict(photon.Config(vocab_size=VOCAB, eos_token_id=[256, 3], **more).to_dict())
    model = photon.build(cfg)
    model.load_state_dict({name: torch.from_numpy(x).float() for name, x in golden.random_weights(cfg, "probe").items()})
    return model.eval()


def one_chunk():
    """Its conditions know the unit before and no other, its decoder the unit itself."""
    return build(embedding_size=6, levels=[
        level(4, 1, "concat", stack(24, 20, 4, 4, 6, window=1), decoder(20, 28, 2, 2, 10))])


def unpacking(top=0):
    return build(embedding_size=20, content="states", token_encoder=stack(20, 24, 2, 1, 10, layers=2, window=3), levels=[
        level(4, 0, "linear", stack(24, 20, 4, 4, 6, window=top),
              decoder(20, 28, 2, 2, 10, layers=2, window=5, memories=[memory(1, [0, 1], 2, 1, 8, theta=100.0, unpack=True)]))])


def flat():
    return build(stack=stack(16, 20, 2, 1, 8, layers=2))


class Tiny(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.path = directory.name
        bpe.save(cls.at("tokenizer.json"), [])
        cls.tokenizer = bpe.load(cls.at("tokenizer.json"))
        generator = torch.Generator().manual_seed(1)
        cls.pieces = torch.randint(256, (PIECES, PIECE), generator=generator)
        letters = torch.randint(97, 122, (3, 1100), generator=generator)
        cls.texts = [bytes(row[: 1100 - 300 * i].tolist()).decode() for i, row in enumerate(letters)]
        with open(cls.at("text.txt"), "w", encoding="utf-8") as f:
            f.write("".join(f"{text}\n<|endoftext|>\n" for text in cls.texts))
        data.pack([cls.at("text.txt")], cls.tokenizer, cls.at("text.bin"))

    @classmethod
    def at(cls, name):
        return os.path.join(cls.path, name)

    def prober(self, model):
        return probe.Prober(model, self.tokenizer, "cpu")

    def mean(self, model):
        return self.prober(model).nats(self.pieces).mean().item()

    def worth(self, model):
        return self.prober(model).worth(self.pieces)


class Nats(Tiny):
    def test_they_are_those_of_evaluate(self):
        for model in (one_chunk(), unpacking(), flat()):
            have = self.prober(model).nats(self.pieces)
            want = torch.stack([evaluate.nats(model, ids) for ids in self.pieces])
            torch.testing.assert_close(have, want, rtol=0, atol=1e-4)

    def test_documents_cost_what_score_says(self):
        for model in (unpacking(), flat()):
            have = self.prober(model).documents(data.open_packed(self.at("text.bin"), self.tokenizer))
            self.assertAlmostEqual(have, evaluate.score(model, self.tokenizer, self.texts)["bits_per_byte"], places=4)

    def test_a_flat_model_without_an_opening_is_refused(self):
        model = flat()
        model.cfg.eos_token_id = None
        with self.assertRaisesRegex(ValueError, "bos_token_id or eos_token_id"):
            self.prober(model).nats(self.pieces)


class Gains(Tiny):
    def gains(self, model):
        p = self.prober(model)
        return p.gains(self.pieces, p.nats(self.pieces))

    def test_a_model_that_sees_one_chunk_gains_nothing(self):
        gains = self.gains(one_chunk())
        self.assertEqual(list(gains), [64])  # 256 tokens before the second half are more than there are
        self.assertAlmostEqual(gains[64], 0, delta=1e-5)

    def test_by_hand(self):
        """Of the 200 tokens of the second half three times 64 are judged, each behind 64 … 127."""
        for model in (flat(), unpacking()):
            whole = self.prober(model).nats(self.pieces)[:, 200:392]
            parts = [self.prober(model).nats(self.pieces[:, 200 + 64 * i - 64 : 264 + 64 * i])[:, 64:] for i in range(3)]
            want = (torch.cat(parts, 1).mean() - whole.mean()).item()
            self.assertGreater(abs(want), 1e-3)
            self.assertAlmostEqual(self.gains(model)[64], want, places=5)


class Worth(Tiny):
    def test_what_does_nothing_is_worth_nothing(self):
        model = unpacking()
        zeros = {
            "decoder 1 layer 1": [model.levels[0].decoder.layers[1].self_attn.o_proj, model.levels[0].decoder.layers[1].mlp.down_proj],
            "token encoder layer 0": [model.token_encoder.layers[0].self_attn.o_proj, model.token_encoder.layers[0].mlp.down_proj],
            "decoder 1 memory 0 in layer 0": [model.levels[0].decoder.layers[0].memory_attn["0"].o_proj],
            "condition 1": [model.levels[0].converter],
            "decoder 1 memory 0 unpacked": [model.levels[0].decoder.memories[0].unpack],
        }
        before = self.worth(model)
        self.assertEqual(set(before), {*zeros, "decoder 1 memory 0", "decoder 1 memory 0 in layer 1", "decoder 1 layer 0", "encoder 1 layer 0",
                                       "token encoder layer 1"})
        for part, modules in zeros.items():
            changed = copy.deepcopy(model)
            twins = dict(zip(model.modules(), changed.modules()))
            for module in modules:
                torch.nn.init.zeros_(twins[module].weight)
            with self.subTest(part=part):
                self.assertGreater(abs(before[part]), 1e-4)
                self.assertAlmostEqual(self.worth(changed)[part], 0, delta=1e-6)

    def test_a_layer_is_worth_what_zeroing_it_costs(self):
        for model, part, layer in ((flat(), "layer 1", lambda m: m.model.layers[1]),
                                   (one_chunk(), "encoder 1 layer 0", lambda m: m.levels[0].encoder.layers[0])):
            changed = copy.deepcopy(model)
            torch.nn.init.zeros_(layer(changed).self_attn.o_proj.weight)
            torch.nn.init.zeros_(layer(changed).mlp.down_proj.weight)
            self.assertAlmostEqual(self.worth(model)[part], self.mean(changed) - self.mean(model), places=5)

    def test_a_memory_is_worth_what_zeroing_its_reads_costs(self):
        model = unpacking()
        changed = copy.deepcopy(model)
        for layer in changed.levels[0].decoder.layers:
            torch.nn.init.zeros_(layer.memory_attn["0"].o_proj.weight)
        self.assertAlmostEqual(self.worth(model)["decoder 1 memory 0"], self.mean(changed) - self.mean(model), places=5)

    def test_a_mean_goes_through_the_map_as_a_bias(self):
        model = unpacking()
        states = model.states(self.pieces)["X1"]
        conditions = torch.cat((model.start_latent.expand(PIECES, 1, -1), states[:, :-1]), 1)
        for part, rows, linear in (("condition 1", conditions, lambda m: m.levels[0].converter),
                                   ("decoder 1 memory 0 unpacked", states, lambda m: m.levels[0].decoder.memories[0].unpack)):
            changed = copy.deepcopy(model)
            with torch.no_grad():
                linear(changed).bias.copy_(linear(model)(rows.mean((0, 1))))
                linear(changed).weight.zero_()
            want = self.mean(changed) - self.mean(model)
            with self.subTest(part=part), mock.patch.object(probe, "AT_ONCE", 2 * PIECE):  # passes of 2, 2 and 1 pieces
                self.assertGreater(abs(want), 1e-4)
                self.assertAlmostEqual(self.worth(model)[part], want, places=5)

    def test_the_model_is_left_as_it_was(self):
        model = unpacking()
        before = self.prober(model).nats(self.pieces)
        self.worth(model)
        self.assertTrue(torch.equal(self.prober(model).nats(self.pieces), before))
        self.assertFalse([name for name, module in model.named_modules() if "forward" in vars(module) or module._forward_pre_hooks])


class Report(Tiny):
    def test_positions_cover_a_piece(self):
        nats = torch.arange(400.0).expand(2, 400)
        self.assertEqual(probe.by_position(nats), {"0-64": 31.5, "64-256": 159.5, "256-400": 327.5})
        self.assertEqual(list(probe.by_position(nats[:, :256])), ["0-64", "64-256"])

    def test_all_of_it(self):
        books = self.at("text.bin")
        out = probe.probe(unpacking(), self.tokenizer, "cpu", books, {"tales": books}, books, piece=300, long_piece=1000)
        self.assertEqual(list(out), ["books bits/byte", "books by position", "gain", "tales bits/byte", "long bits/byte", "long by position",
                                     "long gain", "worth"])
        self.assertEqual((list(out["gain"]), list(out["long gain"])), ([64], [64, 256]))
        json.dumps(out)

    def test_pieces(self):
        cut = probe.pieces_of(self.at("text.bin"), self.tokenizer, 300, 2, 4)
        ids = [self.tokenizer.encode(text) for text in self.texts]
        self.assertEqual(cut.tolist(), [ids[0][:300], ids[0][300:600], ids[1][:300], ids[1][300:600], ids[2][:300]])
        for size, why in ((302, "meta-context of 4"), (1200, "no document has 1200 tokens")):
            with self.assertRaisesRegex(ValueError, why):
                probe.pieces_of(self.at("text.bin"), self.tokenizer, size, 2, 4)


class Folds(unittest.TestCase):
    def test_memories_of_one_size_that_differ_are_not_folded(self):
        def folds(*memories):
            fast._folds.clear()
            patched = ("rotate", "attention", "memory_attention")
            with mock.patch.multiple(photon, **{name: getattr(photon, name) for name in patched}):
                fast.install(build(embedding_size=8, levels=[
                    level(4, 0, "linear", stack(24, 20, 4, 4, 6), decoder(20, 28, 2, 2, 10, window=5, memories=memories))]), 64, "cpu")
            return dict(fast._folds)

        tokens, units, unpacked = memory(0, [0], 2, 1, 8), memory(1, [0], 2, 1, 8), memory(1, [0], 2, 1, 8, unpack=True)
        self.assertEqual(folds(tokens, units), {(64, 65): 1, (64, 17): 4})
        self.assertEqual(folds(unpacked), {(64, 65): None})
        self.assertEqual(folds(tokens, unpacked, tokens), {(64, 65): None})


if __name__ == "__main__":
    unittest.main()
