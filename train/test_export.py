"""tensorfile.py and export.py: what is written is what was meant."""

import json
import os
import struct
import tempfile
import unittest

import numpy as np
import torch

import bpe
import export
import golden
import model as photon
import tensorfile


class TensorFile(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        numbers = np.random.RandomState(1)
        self.tensors = {
            "b.odd": ("I8", numbers.randint(-127, 128, (3, 5)).astype("<i1")),
            "a.half": ("F16", numbers.randn(7).astype("<f2")),
            "c.bits": ("BF16", tensorfile.to_bf16(numbers.randn(5, 3))),
            "d.wide": ("F32", numbers.randn(2, 2, 3).astype("<f4")),
            "e.ids": ("I32", numbers.randint(0, 99, 4).astype("<i4")),
        }

    def same(self, have):
        self.assertEqual(set(have), set(self.tensors))
        for name, (dtype, array) in self.tensors.items():
            self.assertEqual(have[name][0], dtype)
            np.testing.assert_array_equal(have[name][1], array)

    def test_round_trip_and_layout(self):
        path = os.path.join(self.directory, "x.safetensors")
        tensorfile.write(path, self.tensors)
        self.same(tensorfile.read(path))
        with open(path, "rb") as file:
            data = file.read()
        (size,) = struct.unpack_from("<Q", data)
        self.assertEqual(size % 8, 0)
        header = json.loads(data[8 : 8 + size])
        self.assertEqual(header.pop("__metadata__"), {"format": "pt"})
        end = 0
        for entry in header.values():  # sorted, without a hole, each aligned to its dtype
            start, stop = entry["data_offsets"]
            self.assertEqual((start, start % np.dtype(tensorfile.NUMPY[entry["dtype"]]).itemsize), (end, 0))
            end = stop
        self.assertEqual(8 + size + end, len(data))

    def test_shards(self):
        tensorfile.write_model(self.directory, self.tensors, shards=3)
        self.assertEqual(len([f for f in os.listdir(self.directory) if f.startswith("model-")]), 3)
        self.same(tensorfile.read_model(self.directory))

    def test_wrong_array_type(self):
        with self.assertRaisesRegex(TypeError, "b.odd"):
            tensorfile.write(os.path.join(self.directory, "x"), {"b.odd": ("F32", np.zeros(3))})

    def test_bf16_rounds_like_torch(self):
        x = np.random.RandomState(2).randn(10000).astype("<f4")
        x[:4] = [1 + 2**-8, 1 + 3 * 2**-8, 1e-40, -0.0]  # two ties, a subnormal, a signed zero
        bits = torch.from_numpy(x).bfloat16().view(torch.int16).numpy().view("<u2")
        np.testing.assert_array_equal(tensorfile.to_bf16(x), bits)

    def test_a_value_that_does_not_fit(self):
        with self.assertRaisesRegex(ValueError, "big"):
            tensorfile.store({"big": np.array([1e6])}, "F16")
        with self.assertRaisesRegex(ValueError, "nan"):
            tensorfile.store({"nan": np.array([np.nan])}, "BF16")


class Int8(unittest.TestCase):
    def test_error_is_half_a_step_of_the_group(self):
        x = np.random.RandomState(3).randn(6, 75) * np.logspace(-3, 2, 75)
        x[2, 32:64] = 0
        stored = tensorfile.store({"w": x, "v": x[0]}, "I8", "BF16")
        self.assertEqual({name: dtype for name, (dtype, _) in stored.items()}, {"w": "I8", "w.scales": "BF16", "v": "BF16"})
        self.assertEqual(stored["w.scales"][1].shape, (6, 3))
        self.assertLessEqual(np.abs(stored["w"][1].astype(int)).max(), 127)
        back = tensorfile.values(stored)["w"]
        for group in range(3):
            columns = slice(32 * group, 32 * group + 32)
            step = np.abs(x[:, columns]).max(1, keepdims=True) / 127
            # The bf16 scale is up to 2^-9 short, and the largest weight is clipped by 127 times that.
            self.assertTrue((np.abs(back[:, columns] - x[:, columns]) <= 0.76 * step).all())
        self.assertTrue((back[2, 32:64] == 0).all())


class Export(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.tokenizer = os.path.join(self.directory, "tokenizer.json")
        bpe.save(self.tokenizer, bpe._train_own(bpe.count_words([export.SENTENCE] * 2), 300))
        spec = golden.CASES["photon-stream-bf16"].config.to_dict()
        self.cfg = photon.Config.from_dict({**spec, "vocab_size": 300, "eos_token_id": 299})
        self.model = photon.build(self.cfg).init_weights(4)
        self.checkpoint = os.path.join(self.directory, "checkpoint.pt")
        self.save(self.model.state_dict())

    def save(self, state):
        torch.save({"config": self.cfg.to_dict(), "model": state}, self.checkpoint)

    def test_every_form(self):
        for form, error in (("F32", 1e-6), ("F16", 1e-3), ("BF16", 1e-2), ("I8", 1e-2)):
            with self.subTest(form=form):
                directory = os.path.join(self.directory, form)
                cfg, weights = export.load(self.checkpoint)
                export.export(cfg, weights, directory, self.tokenizer, form, shards=2 if form == "F16" else 1, notes="Trained on sand.")
                self.check_directory(directory, error)

    def check_directory(self, directory, error):
        cfg = photon.Config.from_file(os.path.join(directory, "config.json"))
        self.assertEqual(cfg, self.cfg)
        model = photon.build(cfg)
        model.load_state_dict(tensorfile.load(directory if error == 1e-3 else os.path.join(directory, "model.safetensors")))
        for name, x in model.state_dict().items():
            want = self.model.state_dict()[name]
            self.assertLess((x - want).abs().max(), error * max(1e-6, want.abs().max().item()), name)
        with open(os.path.join(directory, "golden.json")) as file:
            block = json.load(file)
        with torch.no_grad():
            logits = model(torch.tensor([block["ids"]]))[0]
        self.assertEqual(len(block["ids"]), export.GOLDEN_TOKENS)
        self.assertIn(export.GOLDEN_TOKENS - 1, block["rows"])
        limit = block["tolerance"] * np.abs(block["values"]).max()
        for row, indices, values, total in zip(block["rows"], block["indices"], block["values"], block["logsumexp"]):
            self.assertEqual(len(set(indices)), export.GOLDEN_LOGITS)
            np.testing.assert_allclose(logits[row, indices].numpy(), values, rtol=0, atol=limit)
            self.assertAlmostEqual(logits[row].logsumexp(0).item(), total, delta=max(limit, 1e-5))
        with open(os.path.join(directory, "README.md"), encoding="utf-8") as file:
            self.assertIn("Trained on sand.", file.read())
        with open(os.path.join(directory, "generation_config.json")) as file:
            self.assertEqual(json.load(file)["eos_token_id"], 299)

    def test_a_checkpoint_that_does_not_fit(self):
        state = self.model.state_dict()
        for change in ({"start_latent": torch.zeros(3)}, {"extra": torch.zeros(1)}):
            self.save({**state, **change})
            with self.assertRaisesRegex(ValueError, next(iter(change))):
                export.load(self.checkpoint)

    def test_another_tokenizer_is_refused(self):
        bpe.save(self.tokenizer, bpe._train_own(bpe.count_words([export.SENTENCE] * 2), 280))
        with self.assertRaisesRegex(ValueError, "280 tokens"):
            export.export(*export.load(self.checkpoint), self.directory, self.tokenizer, "F32")

    def test_an_average_is_the_mean_of_checkpoints_of_one_shape(self):
        other = os.path.join(self.directory, "other.pt")
        torch.save({"config": self.cfg.to_dict(), "model": {name: 3 * x for name, x in self.model.state_dict().items()}}, other)
        cfg, weights = export.average([self.checkpoint, other])
        self.assertEqual(cfg, self.cfg)
        for name, x in self.model.state_dict().items():
            np.testing.assert_allclose(weights[name], 2 * x.float().numpy(), rtol=1e-6)
        cfg = {**self.cfg.to_dict(), "rms_norm_eps": 1e-3}
        torch.save({"config": cfg, "model": self.model.state_dict()}, other)
        with self.assertRaisesRegex(ValueError, "one shape"):
            export.average([self.checkpoint, other])

    def test_a_temperature_divides_the_logits(self):
        for name in ("flat-gqa-f32", "photon-local-f32"):
            cfg = golden.CASES[name].config
            model = photon.build(cfg).init_weights(1)
            ids = torch.arange(40)[None] % cfg.vocab_size
            with self.subTest(model=name), torch.no_grad():
                want = model(ids) / 1.25
                weights = export.cooled(cfg, {name: x.numpy() for name, x in model.state_dict().items()}, 1.25)
                model.load_state_dict({name: torch.from_numpy(x) for name, x in weights.items()})
                torch.testing.assert_close(model(ids), want)

    def test_files_that_go_along_and_the_card_of_a_memory(self):
        cfg = golden.CASES["memory0-added-stream-f32"].config
        cfg = photon.Config.from_dict({**cfg.to_dict(), "vocab_size": 300, "eos_token_id": 299})
        weights = {name: x.float().numpy() for name, x in photon.build(cfg).init_weights(1).state_dict().items()}
        settings, out = os.path.join(self.directory, "generation_config.json"), os.path.join(self.directory, "out")
        with open(settings, "w") as file:
            file.write('{"temperature": 0.1}')
        export.export(cfg, weights, out, self.tokenizer, "F32", along=[settings])
        # Again, with the files that are there now.
        again = [os.path.join(out, name) for name in ("generation_config.json", "tokenizer.json")]
        export.export(cfg, weights, out, again[1], "F32", along=again[:1])
        with open(os.path.join(out, "generation_config.json")) as file:
            self.assertEqual(json.load(file), {"temperature": 0.1})
        with open(os.path.join(out, "README.md"), encoding="utf-8") as file:
            self.assertRegex(file.read(), "(?s)^---\nlanguage: en.*token encoder.*a memory of tokens")


if __name__ == "__main__":
    unittest.main()
