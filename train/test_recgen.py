"""recgen.py: the tokens and logits of the reference, and figures that are what they are called."""

import contextlib
import io
import json
import math
import os
import tempfile
import unittest

import numpy as np
import torch

import bpe
import data
import evaluate
import golden
import model as photon
import recgen
import tensorfile

DIRECTORY = os.path.join(os.path.dirname(__file__), "..", "testdata", "golden")
NAMES = ("photon-local-f32", "three-local-bf16")  # two levels, three levels


def load(name):
    """The golden model in float64, and its golden tensors."""
    directory = os.path.join(DIRECTORY, name)
    cfg = photon.Config.from_file(os.path.join(directory, "config.json"))
    stored = {key: x for key, (_, x) in tensorfile.read(os.path.join(directory, "golden.safetensors")).items()}
    for key in stored:
        if stored[key].ndim == 1:
            stored[key] = stored[key].astype(int).tolist()
    return golden.load(cfg, tensorfile.read_model(directory)), stored


class Reference(unittest.TestCase):
    def test_greedy_tokens_are_those_of_the_reference(self):
        for name in NAMES:
            model, stored = load(name)
            prompt = stored["prompt"]
            for cut in (len(prompt), len(prompt) - model.cfg.meta_context):
                tokens, _ = golden.recgen(model, prompt[:cut], 2)
                # Texts side by side: the prompt, and another one beside it.
                both = torch.tensor([prompt[:cut], prompt[:cut][::-1]])
                have = recgen.greedy(model, recgen.conditions(model, both, 2))
                with self.subTest(model=name, prompt=cut):
                    self.assertEqual(have[0].tolist(), tokens)
                    self.assertNotEqual(have[1].tolist(), tokens)

    def test_forced_logits_of_its_own_tokens_are_those_that_it_chose_from(self):
        for name in NAMES:
            model, stored = load(name)
            prompt, tokens = (torch.tensor([stored[key]]) for key in ("prompt", "recgen_tokens"))
            with torch.no_grad():
                units = recgen.conditions(model, prompt, 3)
                logits = model.project(recgen.forced(model, units, tokens))[0].numpy()
            with self.subTest(model=name):
                self.assertLess(np.abs(logits - stored["recgen_logits"]).max(), 1e-6 * np.abs(logits).max())

    def test_hiergen_greedy_is_the_reference(self):
        for name in NAMES:
            model, stored = load(name)
            have = recgen.hiergen_greedy(model, torch.tensor([stored["prompt"]]), 20)
            with self.subTest(model=name):
                self.assertEqual(have[0].tolist(), stored["hiergen_tokens"][:20])

    def test_the_first_unit_is_exact_and_no_token_reaches_a_later_one(self):
        for name in NAMES:
            model, stored = load(name)
            meta, chunk = model.cfg.meta_context, model.levels[0].chunk
            ids = torch.tensor([stored["ids"][: 3 * meta]])
            base = recgen.compare(model, ids, meta)
            for p in range(meta, 3 * meta):
                other = ids.clone()
                other[0, p] = (other[0, p] + 1) % model.cfg.vocab_size
                changed = recgen.compare(model, other, meta)
                moved = (changed["recgen"] != base["recgen"])[0].nonzero().flatten() + meta
                with self.subTest(model=name, token=p):
                    self.assertIn(p, moved.tolist())
                    self.assertTrue((moved // chunk == p // chunk).all(), moved)
                    self.assertTrue((changed["hiergen"] != base["hiergen"])[0, p - meta + 1 :].all())
            with self.subTest(model=name):
                torch.testing.assert_close(base["recgen"][:, :chunk], base["hiergen"][:, :chunk], rtol=0, atol=1e-9)
                self.assertLess(base["kl"][:, :chunk].abs().max().item(), 1e-9)
                self.assertGreater(base["kl"][:, chunk:].min().item(), 1e-6)


class Figures(unittest.TestCase):
    def test_an_empty_prompt(self):
        model, _ = load("photon-local-f32")
        ids = torch.randint(61, (2, 32), generator=torch.Generator().manual_seed(1))
        base = recgen.compare(model, ids, 0)
        torch.testing.assert_close(base["recgen"][:, :4], base["hiergen"][:, :4], rtol=0, atol=1e-9)
        self.assertTrue(torch.isfinite(base["kl"]).all())

    def test_sums(self):
        model, _ = load("photon-local-f32")
        numbers = np.random.RandomState(1)
        texts = [numbers.randint(0, 61, 16 * 7) for _ in range(5)]
        sizes = numbers.randint(1, 6, 61)
        figures = recgen.judge(model, texts, 32, sizes, greedy_metas=2, batch=2)
        self.assertEqual((figures["texts"], figures["tokens"], figures["greedy_tokens"]), (5, 5 * 80, 32))
        self.assertEqual(figures["bytes"], sum(sizes[text[32:]].sum() for text in texts))
        nats, kl, equal = 0.0, 0.0, 0
        for text in texts:
            ids = torch.tensor(text)
            nats += evaluate.nats(model, ids)[32:].double().sum().item()
            with torch.no_grad():
                units = recgen.conditions(model, ids[None, :32], 5)
                q = model.project(recgen.forced(model, units, ids[None, 32:]))[0].softmax(-1)
                p = model(ids[None])[0, 32:].softmax(-1)
            kl += (p * (p / q).log()).sum().item()
            equal += int((p.argmax(-1) == q.argmax(-1)).sum())
        self.assertAlmostEqual(figures["hiergen_bits_per_byte"], nats / math.log(2) / figures["bytes"], places=5)
        self.assertAlmostEqual(figures["kl"], kl / 400, places=5)
        self.assertAlmostEqual(figures["agreement"], equal / 400, places=6)
        self.assertEqual([(s["from"], s["to"]) for s in figures["by_meta_context"]], [(1, 1), (2, 2), (3, 4), (5, 5)])
        recursive = figures["recgen_bits_per_byte"] * figures["bytes"] * math.log(2) / 400
        for key, mean in (("kl", figures["kl"]), ("recgen", recursive)):
            summed = sum(weight * span[key] for weight, span in zip((1, 1, 2, 1), figures["by_meta_context"]))
            self.assertAlmostEqual(summed / 5, mean, places=6)
        self.assertGreaterEqual(figures["greedy_same"], 4)  # the first unit is exact
        self.assertLess(figures["greedy_agreement"], 1)

    def test_what_it_cannot_run_is_refused_by_name(self):
        refused = {
            "block-f32": "two levels", "flat-gqa-f32": "two levels", "photon-stream-bf16": "stream",
            "token-encoder-local-f32": "token_encoder", "memory2-prefix-local-f16": "memories",
            "memory-states-bare-i8": "content", "three-memory-bf16": "prefix_length 0",
        }
        for name, why in refused.items():
            with self.subTest(model=name), self.assertRaisesRegex(ValueError, why):
                recgen.check(golden.CASES[name].config)

    def test_the_program(self):
        with tempfile.TemporaryDirectory() as directory:
            def at(name):
                return os.path.join(directory, name)

            bpe.save(at("tokenizer.json"), [])
            with open(at("text.txt"), "w", encoding="utf-8") as file:
                file.write("\n<|endoftext|>\n".join(("A fox saw the moon. " * 20, "short", "Größe und Maß. " * 9)))
            data.pack([at("text.txt")], bpe.load(at("tokenizer.json")), at("text.bin"))
            spec = {**golden.CASES["photon-local-f32"].config.to_dict(), "vocab_size": 257, "eos_token_id": 256}
            model = photon.build(photon.Config.from_dict(spec)).init_weights(1)
            torch.save({"config": spec, "model": model.state_dict()}, at("checkpoint.pt"))
            arguments = ["--checkpoint", at("checkpoint.pt"), "--tokenizer", at("tokenizer.json"), "--device", "cpu"]
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                shape = ["--prompt", "70", "--metas", "4", "--greedy", "1", "--batch", "2"]
                recgen.main(arguments + shape + [at("text.bin")])
            figures = json.loads(out.getvalue())
            self.assertEqual((figures["prompt"], figures["texts"], figures["tokens"]), (64, 4, 256))
            self.assertEqual(figures["bytes"], 256)  # the tokens are bytes
            self.assertAlmostEqual(figures["recgen_bits_per_byte"], 8, delta=0.5)
            with self.assertRaisesRegex(SystemExit, "no document has"):
                recgen.main(arguments + ["--prompt", "7000", at("text.bin")])


if __name__ == "__main__":
    unittest.main()
