"""train.py and optim.py: rows of documents, resuming, the two optimisers."""

import contextlib
import io
import json
import os
import tempfile
import unittest
import unittest.mock

import numpy as np
import torch

import bpe
import data
import fast
import golden
import model
import optim
import train


class FakePacked:
    def __init__(self, lengths, eos):
        self.offsets = np.cumsum([0] + lengths)
        self.ids = np.arange(self.offsets[-1]) + 1
        self.manifest = {"eos_token_id": eos}

    def document(self, i):
        return self.ids[self.offsets[i] : self.offsets[i + 1]]


class Rows(unittest.TestCase):
    def test_an_epoch_holds_every_token_once_and_documents_start_aligned(self):
        packed = FakePacked([5, 70, 16, 33, 1, 8], eos=0)
        starts = set(packed.ids[packed.offsets[:-1]].tolist())
        ranks = [train.Stream(packed, 32, 16, seed=3, rank=r, world=2) for r in range(2)]
        seen = []
        for stream in ranks:
            while stream.epoch < 1:
                ids, mask = stream.row()
                self.assertTrue((ids[~mask] == 0).all())
                for at in np.flatnonzero(mask):
                    if at % 16:  # elsewhere a document may begin, from the second epoch on inside it
                        self.assertNotIn(ids[at], starts)
                        self.assertEqual(ids[at - 1] + 1, ids[at])
                seen.extend(ids[mask].tolist())
        # Each rank stopped at its first row of the second epoch, so nothing was seen more than twice.
        self.assertEqual(sorted(set(seen)), packed.ids.tolist())
        self.assertLessEqual(max(seen.count(i) for i in seen), 2)

    def mixture(self, *weights, written=()):
        packed = [FakePacked([40, 7, 90], eos=0), FakePacked([11, 64], eos=0)]
        packed[1].ids += 1000
        with unittest.mock.patch.object(data, "open_packed", lambda path, _: packed[int(path)]):
            return train.Mixture([f"{i}{w}" for i, w in enumerate(weights)], None, 32, 16, 1, 0, 1, written)

    def test_a_mixture_goes_on_from_its_state(self):
        a, b = self.mixture(":1:3", ":2"), self.mixture(":1:3", ":2")
        drawn = [a.batch(3, "cpu", n / 9)[0] for n in range(5)]
        file = io.BytesIO()
        torch.save(a.state(), file)
        file.seek(0)
        b.resume(torch.load(file))
        for n in range(5, 9):
            torch.testing.assert_close(a.batch(3, "cpu", n / 9), b.batch(3, "cpu", n / 9))
        self.assertGreater(len({bytes(ids.numpy()) for ids in drawn}), 1)

    def test_weights_go_to_their_last(self):
        mixture = self.mixture(":3:1", ":1:3")
        shares = []
        for decayed in (0.0, 0.5, 1.0):
            rows = [mixture.row(decayed)[0] for _ in range(2000)]
            shares.append(np.mean([(ids > 1000).any() for ids in rows]))
        np.testing.assert_allclose(shares, [0.25, 0.5, 0.75], atol=0.04)

    def test_rows_say_whether_a_model_wrote_them(self):
        ids, _, written = self.mixture(":1", written=["1:1"]).batch(50, "cpu")
        self.assertEqual((ids > 1000).any(1).tolist(), written.tolist())
        self.assertEqual(len(set(written.tolist())), 2)


class Optimisers(unittest.TestCase):
    def test_orthogonalise_brings_singular_values_near_one(self):
        generator = torch.Generator().manual_seed(1)
        for shape in ((24, 24), (16, 64), (64, 16)):
            g = torch.randn(shape, generator=generator)
            x = optim.orthogonalise(g)
            u, s, v = torch.linalg.svd(g, full_matrices=False)
            got = torch.diagonal(u.t() @ x @ v.t())  # the same singular vectors, other values
            strong = got[s > 0.1 * s[0]]
            self.assertTrue(((strong > 0.6) & (strong < 1.3)).all(), strong)

    def test_every_parameter_has_one_optimiser(self):
        model = train.build(golden.CASES["photon-local-f32"].config).init_weights(1)
        for muon_lr in (0, 0.02):
            held = [p for o in optim.optimisers(model, 1e-3, muon_lr, 0.1, "cpu") for g in o.param_groups for p in g["params"]]
            self.assertEqual(sorted(map(id, held)), sorted(map(id, model.parameters())))


class Interrupted(Exception):
    pass


class Run(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = directory.name
        text = "".join(f"The {a} saw the {b}.\n<|endoftext|>\n" for a in ("cat", "dog", "hen", "fox") for b in ("moon", "sun", "sea"))
        self.file("text.txt", text * 20)
        bpe.save(self.at("tokenizer.json"), [])
        data.pack([self.at("text.txt")], bpe.load(self.at("tokenizer.json")), self.at("text.bin"))
        cfg = golden.CASES["photon-local-f32"].config.to_dict()
        cfg.update(vocab_size=257, eos_token_id=256)
        self.file("config.json", json.dumps(cfg))
        self.config = cfg

    def at(self, name):
        return os.path.join(self.path, name)

    def file(self, name, text):
        with open(self.at(name), "w", encoding="utf-8") as f:
            f.write(text)

    def train(self, out, *more):
        arguments = ["--config", self.at("config.json"), "--tokenizer", self.at("tokenizer.json"), "--data", self.at("text.bin"),
                     "--heldout", self.at("text.bin"), "--out", self.at(out), "--rows", "2", "--tokens", "64", "--warmup", "2",
                     "--log-every", "1", *more]
        with contextlib.redirect_stdout(io.StringIO()):
            train.main(arguments)
        with open(self.at(out + "/log.jsonl"), encoding="utf-8") as f:
            return [json.loads(line) for line in f]

    def test_it_learns(self):
        log = self.train("out", "--steps", "30")
        losses = [line["loss"] for line in log if "loss" in line]
        self.assertLess(losses[-1], losses[0] - 1)
        self.assertEqual(log[-1]["step"], 30)
        self.assertGreater(log[-1]["heldout_bits_per_byte"], 0)

    def test_a_resumed_run_ends_where_an_uninterrupted_one_does(self):
        self.train("whole", "--steps", "6")
        step, calls = torch.optim.AdamW.step, []

        def fail_once(self, closure=None):
            calls.append(1)
            if len(calls) == 4:
                raise Interrupted
            return step(self, closure)

        torch.optim.AdamW.step = fail_once
        try:
            with self.assertRaises(Interrupted):
                self.train("broken", "--steps", "6", "--save-every", "0")
        finally:
            torch.optim.AdamW.step = step
        self.train("broken", "--steps", "6")
        whole, broken = (torch.load(self.at(f"{name}/checkpoint.pt"))["model"] for name in ("whole", "broken"))
        for name in whole:
            torch.testing.assert_close(whole[name], broken[name], rtol=0, atol=1e-6)

    def test_it_learns_from_teachers(self):
        self.train("teacher", "--steps", "30")
        teachers = ("--teacher", self.at("teacher/checkpoint.pt"), "--taught", "1", "--noise", "0.1")
        log = self.train("pupil", "--steps", "30", "--seed", "2", *teachers)
        self.assertLess(log[-1]["heldout_bits_per_byte"], 6.5)  # 8 before the first step
        self.file("config.json", json.dumps(dict(self.config, vocab_size=258)))
        bpe.save(self.at("tokenizer.json"), [(b"a", b"n")])
        data.pack([self.at("text.txt")], bpe.load(self.at("tokenizer.json")), self.at("text.bin"))
        with self.assertRaisesRegex(SystemExit, "a teacher must have 258"):
            self.train("other", "--steps", "1", *teachers)

    def test_of_written_text_teachers_are_believed_alone(self):
        cfg = golden.CASES["photon-local-f32"].config
        pupil, teacher = (model.build(cfg).init_weights(seed) for seed in (1, 2))
        ids = torch.randint(cfg.vocab_size, (2, 32), generator=torch.Generator().manual_seed(1))
        mask, written = torch.ones_like(ids, dtype=torch.bool), torch.tensor([False, True])
        loss = train.Loss(pupil, 0, [teacher], 0.3)(ids, mask, ids, written)
        each = [pupil.loss(row[None], teachers=[teacher], taught=taught) for row, taught in zip(ids, (0.3, 1))]
        torch.testing.assert_close(loss, sum(each) / 2)

    def test_a_time_that_is_past_ends_it_at_once(self):
        log = self.train("late", "--until", "2026-01-31T18:00:00Z")
        self.assertEqual([line["step"] for line in log if "step" in line], [0])

    def test_written_text_wants_a_teacher(self):
        with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as said:
            self.train("alone", "--steps", "1", "--written", self.at("text.bin"))
        self.assertIn("give a --teacher", said.getvalue())

    def test_it_starts_from_given_weights(self):
        log = self.train("first", "--steps", "10")
        still = ("--steps", "1", "--muon-lr", "0", "--lr", "0")
        again = self.train("second", *still, "--init", self.at("first/checkpoint.pt"))
        self.assertEqual(again[-1]["heldout_bits_per_byte"], log[-1]["heldout_bits_per_byte"])

    def test_a_paused_run_goes_on_with_other_data(self):
        self.train("paused", "--steps", "6", "--pause", "0")
        log = self.train("paused", "--steps", "6", "--data", self.at("text.bin") + ":2")
        self.assertEqual([line["step"] for line in log if "heldout_bits_per_byte" in line], [0, 6])


class FastTest(unittest.TestCase):
    def test_off_the_gpu_it_is_the_reference(self):
        g = torch.Generator().manual_seed(1)
        q, k, v = (torch.randn(2, 3, 20, 8, generator=g) for _ in range(3))
        for window in (0, 4):
            self.assertTrue(torch.equal(fast.attention(q, k, v, window), model.attention(q, k, v, window)))
        self.assertTrue(torch.equal(fast.rotate(q, 10000.0), model.rotate(q, 10000.0)))


if __name__ == "__main__":
    unittest.main()
