"""sweep.py: what a run is called and given, jobs that end and are stopped, and a whole sweep of a tiny text."""

import contextlib
import csv
import io
import json
import lzma
import os
import sys
import tempfile
import time
import unittest
from unittest import mock

import bpe
import golden
import model as photon
import sweep
from golden import decoder, level, memory, stack

TINY = photon.Config(vocab_size=257, eos_token_id=256, tie_word_embeddings=True, embedding_size=16, content="states",
                     token_encoder=stack(16, 24, 2, 1, 8, window=8),
                     levels=[level(4, 0, "linear", stack(16, 24, 2, 2, 8, window=16),
                                   decoder(16, 24, 2, 2, 8, layers=2, window=8, memories=[memory(1, [1], 2, 1, 8, theta=100.0, unpack=True)]))])


class Case(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = directory.name
        bpe.save(self.at("tokenizer.json"), [])
        with open(self.at("tiny.json"), "w", encoding="utf-8") as f:
            json.dump(TINY.to_dict(), f)

    def at(self, *names):
        return os.path.join(self.path, *names)

    def text(self, name, documents):
        os.makedirs(os.path.dirname(self.at("text", name)), exist_ok=True)
        with lzma.open(self.at("text", name), "wt", encoding="utf-8") as f:
            f.write("".join(f"{document}\n<|endoftext|>\n" for document in documents))

    def arguments(self, *more):
        return ["--text", self.at("text"), "--work", self.at("work"), "--csv", self.at("runs.csv"), "--tokenizer", self.at("tokenizer.json"),
                "--tokens", "128", "--step-tokens", "256", "--piece", "256", "--long-piece", "512", "--no-compile", *more]

    def sweep(self, *more):
        """(status, what was printed)"""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), self.assertRaises(SystemExit) as left:
            sweep.main(self.arguments(*more))
        return left.exception.code, out.getvalue()


class Whole(Case):
    def test_a_sweep(self):
        saw = [f"The {a} saw the {b}." for a in ("cat", "dog", "hen", "fox") for b in ("moon", "sun", "sea")]
        for name in ("books", "modern"):
            self.text(f"train/{name}.txt.xz", saw * 20)
        for name in ("books_simple_heldout", "llm_children_stories_heldout", "fables_heldout", "long_a", "long_b"):
            self.text(f"eval/{name}.txt.xz", [" ".join(saw) * 3])
        spec = self.at("tiny.json") + ":0.01024:seed=3:warmup=2:lr=0.01"
        broken = self.at("tiny.json") + ":0.001:lr=much"
        code, out = self.sweep(spec, broken, spec)
        self.assertEqual(code, 1, out)
        self.assertIn("FAILED tiny,lr=much@0.001M-1", out)
        self.assertIn("argument --lr: invalid float value", out)

        with open(self.at("runs.csv"), newline="", encoding="utf-8") as f:
            (row,) = csv.DictReader(f)
        want = {"run": "tiny,lr=0.01,warmup=2@0.01024M-3", "shape": "tiny", "seed": "3", "tokens": "10240", "options": "lr=0.01 warmup=2",
                "settings": "step=256 row=128 mix=books=60,modern=40 piece=256 long-piece=512",
                "parameters": str(photon.count_parameters(photon.build(TINY)))}
        self.assertEqual({key: row[key] for key in want}, want)
        size = sum(len(text.encode()) for text in saw * 20)
        self.assertEqual(row["texts"], f"books={size} modern={size}")
        self.assertEqual(float(row["training FLOPs"]), float(f"{6 * 10240 * sweep.cost.count(TINY, 64)['decode']:.3g}"))
        self.assertTrue({"books by position 64-256", "gain 64", "long by position 256-512", "long gain 64", "prefill", "growth"} <= set(row))
        self.assertTrue(0 < float(row["books bits/byte"]) < 7, row)  # 8 before the first step
        self.assertIn("decoder 1 memory 0 unpacked", json.loads(row["worth"]))
        with open(self.at("work", "runs", row["run"], "log.jsonl"), encoding="utf-8") as f:
            first = json.loads(f.readline())
        self.assertEqual(first["options"]["steps"], 40)
        self.assertEqual((first["options"]["rows"], first["options"]["weight_decay"], first["options"]["decay_from"]), (2, 0.1, 0.4))
        self.assertEqual([path.rpartition(":")[2] for path in first["options"]["data"]], ["60", "40"])

        # What has its row is left alone; of other texts or under other settings it is another run.
        with mock.patch.object(sweep, "Job", side_effect=AssertionError):
            self.assertEqual(self.sweep(spec)[0], 0)
            sweep.write_rows(self.at("runs.csv"), [dict(row, texts="books=1 modern=1")])
            with self.assertRaises(AssertionError):
                self.sweep(spec)
            # Texts that were packed anew are not those that a run in WORK was begun with.
            self.text("train/books.txt.xz", saw * 21)
            for name in ("books.bin", "books.json", "books.offsets"):
                os.remove(self.at("work", name))
            code, out = self.sweep(spec)
            self.assertEqual(code, 2)
            self.assertIn("other texts", out)
            self.text("train/books.txt.xz", saw * 20)
            for name in ("books.bin", "books.json", "books.offsets"):
                os.remove(self.at("work", name))
        code, out = self.sweep("--piece", "128", spec)
        self.assertEqual(code, 2)
        self.assertIn("choose another --csv", out)
        os.remove(self.at("runs.csv"))
        code, out = self.sweep("--mix", "books=1", spec)
        self.assertEqual(code, 2)
        self.assertIn("other settings, other texts or another shape", out)
        code, out = self.sweep("--long-piece", "1024", self.at("tiny.json") + ":0.02")
        self.assertIn("long.bin: its longest document has 7", code)
        # A run whose row is lost is trained and judged by its checkpoint.
        self.assertEqual(self.sweep(spec)[0], 0)
        with open(self.at("runs.csv"), newline="", encoding="utf-8") as f:
            (again,) = csv.DictReader(f)
        self.assertEqual(again["books bits/byte"], row["books bits/byte"])

    def test_missing_texts_are_named_before_anything_runs(self):
        self.text("train/books.txt.xz", ["a"])
        code, out = self.sweep(self.at("tiny.json") + ":0.01")
        for name in ("modern", "books_simple_heldout", "llm_children_stories_heldout", "fables_heldout"):
            self.assertIn(name, code)
        self.assertNotIn("books.txt", code)
        self.assertFalse(os.path.exists(self.at("work", "books.bin")))


class Specs(Case):
    def run_of(self, spec):
        return sweep.Run(spec, mock.Mock(step_tokens=65536, work="work", piece=4096, long_piece=16384))

    def test_names_of_rows(self):
        """Rows that exist name runs so."""
        for spec, name, tokens in (("flat:79", "flat@79M-1", 78970880), ("rival:131", "rival@131M-1", 131006464),
                                   ("new:79:curriculum=4,0.5", "new,curriculum=4,0.5@79M-1", 78970880),
                                   ("new:79:seed=2:muon-lr=0.04:lr=1", "new,lr=1,muon-lr=0.04@79M-2", 78970880),
                                   ("new:1.5", "new@1.5M-1", 23 * 65536)):
            run = self.run_of(spec)
            self.assertEqual((run.id, run.tokens), (name, tokens))

    def test_what_is_wrong_is_said_before_anything_runs(self):
        tiny = self.at("tiny.json")
        for more, why in ((["flatt:79"], "no shape is called"), (["flat"], "is not SHAPE:MILLIONS"), (["flat:many"], "is not SHAPE:MILLIONS"),
                          (["flat:79:seed"], "is not SHAPE:MILLIONS"), (["flat:0.0001"], "less than one step of 256"),
                          (["flat:inf"], "is not SHAPE:MILLIONS"), (["flat:79:steps=2"], "steps is no option of a run"),
                          (["flat:79:out=x"], "out is no option of a run"),
                          (["--side-by-side", "0", "flat:79"], "invalid count"),
                          (["--cards", "-1", "flat:79"], "invalid count"),
                          (["--tokens", "0", "flat:79"], "invalid count"),
                          (["--mix", "books=0,modern=0", "flat:79"], "some of them more"),
                          (["--mix", "books", "flat:79"], "not NAME=SHARE"),
                          (["--tokens", "100", "flat:79"], "no multiple of --tokens"),
                          (["--piece", "250", "published:79"], "its meta-context, 16"), (["--mix", "poems=1", "flat:79"], "'poems' is no text"),
                          (["--mix", "held-books=1", "flat:79"], "no text to train on"), ([self.at("none.json") + ":1"], "none.json")):
            code, out = self.sweep(*more)
            with self.subTest(arguments=more):
                self.assertEqual(code, 2)
                self.assertIn(why, out)
        os.makedirs(self.at("other"))
        with open(self.at("other", "tiny.json"), "w", encoding="utf-8") as f:
            json.dump(golden.CASES["flat-gqa-f32"].config.to_dict(), f)
        code, out = self.sweep(tiny + ":1", self.at("other", "tiny.json") + ":1")
        self.assertIn("two runs would be called tiny@1M-1", out)

    def test_cards(self):
        with mock.patch.dict(os.environ, CUDA_VISIBLE_DEVICES="2,5,7"):
            self.assertEqual((sweep.card_names(None), sweep.card_names(2)), (["2", "5", "7"], ["2", "5"]))


class Jobs(Case):
    def job(self, train, probe="pass"):
        command = lambda code: lambda _: [sys.executable, "-c", code]
        return sweep.Job(mock.Mock(at=self.at, train=command(train), probe=command(probe)), "0", None)

    def finish(self, job):
        until = time.time() + 60
        while job.poll() is None and time.time() < until:
            time.sleep(0.02)
        return job.poll()

    def test_training_then_probing(self):
        job = self.job("print('trained')", "import sys; print('warned', file=sys.stderr); print('probed')")
        self.assertTrue(self.finish(job))
        with open(self.at("out.txt")) as log, open(self.at("probe.json")) as probed:
            self.assertEqual((log.read(), probed.read()), ("trained\nwarned\n", "probed\n"))

    def test_what_fails_is_not_probed(self):
        job = self.job("raise SystemExit('no gold left')", "open('probed', 'w')")
        self.assertFalse(self.finish(job))
        self.assertEqual(job.last_words(), "no gold left\n")
        self.assertFalse(os.path.exists(self.at("probe.json")))

    def test_a_job_is_stopped_with_all_that_it_started(self):
        job = self.job("import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
                       "print(p.pid, flush=True); p.wait()")
        until = time.time() + 60
        while not job.last_words().endswith("\n") and time.time() < until:
            time.sleep(0.02)
        pid = job.last_words().strip()
        job.stop()
        self.assertNotIn(job.process.poll(), (None, 0))
        while time.time() < until:  # its child is gone, or waits to be buried
            try:
                with open(f"/proc/{pid}/stat") as f:
                    if f.read().split()[2] == "Z":
                        return
            except FileNotFoundError:
                return
            time.sleep(0.02)
        self.fail(f"{pid} still runs")

    def test_time_that_is_up_stops_all(self):
        job = self.job("import time; time.sleep(60)")
        options = mock.Mock(seconds=0.5, cards=None, side_by_side=1)
        runs = [mock.Mock(id="one"), mock.Mock(id="two")]
        with (mock.patch.object(sweep, "Job", return_value=job) as made,
              mock.patch.multiple(sweep, pack_all=mock.DEFAULT, sizes=mock.DEFAULT),
              contextlib.redirect_stdout(io.StringIO()) as said):
            self.assertEqual(sweep.sweep(options, runs, []), 2)
        self.assertIn("not begun: two", said.getvalue())
        self.assertEqual(made.call_count, 1)
        self.assertLess(job.process.returncode, 0)


if __name__ == "__main__":
    unittest.main()
