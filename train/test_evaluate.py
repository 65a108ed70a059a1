"""evaluate.py: windows, words, last words; and `photon score` says the same of the embedded model."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

import torch

import bpe
import evaluate
import golden
import model as photon

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
STORIES = os.path.join(ROOT, "models", "stories")
AGREEMENT = 1e-4  # nats a token

STORY = (
    "Once upon a time there was a small fox who lived under the roots of an old oak. Every morning she went down to "
    "the river to drink, and every morning the heron stood there on one leg. \"Good morning,\" said the fox. The heron "
    "said nothing.\n\nOne day the river was frozen. \"How will you eat?\" asked the fox. The heron looked at her with "
    "one yellow eye. \"I wait,\" he said. So the fox ran home, and came back with a stone, and broke the ice. They sat "
    "together until the sun went down.\n\n"
)
LAST_WORDS = [
    "Once upon a time", "The fox was hungry, so she went to look for food", "\"Thank you,\" said the little girl",
    "He opened the door and went inside. It was dark and cold in the hippopotamus",
    "They lived happily ever after. The\nend of the story",
]


def documents():
    with open(os.path.join(ROOT, "docs", "formats.md"), encoding="utf-8") as file:
        return [STORY * 3, file.read(), "x", "Größe:\u00a03 µm\x1cand\u2003more"]


class Windows(unittest.TestCase):
    def test_each_token_is_scored_once_in_the_first_window_that_holds_it(self):
        cuts = ((1, 4, 2), (10, 4, 1), (10, 4, 3), (10, 4, 4), (10, 10, 3), (10, 99, 5), (10, 0, 0), (10, 5, 0))
        for length, context, stride in cuts:
            with self.subTest(length=length, context=context, stride=stride):
                scored = []
                for n, (begin, done, end) in enumerate(evaluate.windows(length, context, stride)):
                    self.assertEqual(begin, n * (stride or context or length))
                    self.assertLessEqual(begin, done)
                    self.assertLessEqual(end - begin, context or length)
                    scored += range(done, end)
                self.assertEqual(scored, list(range(length)))

    def test_a_window_is_a_text_of_its_own(self):
        for name in ("flat-gqa-f32", "photon-stream-bf16"):
            cfg = golden.CASES[name].config
            model = photon.build(cfg).init_weights(1).eval()
            ids = torch.randint(cfg.vocab_size, (50,), generator=torch.Generator().manual_seed(1))
            have = evaluate.document_nats(model, ids, context=20, stride=7)
            torch.testing.assert_close(have[:20], evaluate.nats(model, ids[:20]))
            torch.testing.assert_close(have[20:27], evaluate.nats(model, ids[7:27])[13:])
            torch.testing.assert_close(have[48:], evaluate.nats(model, ids[35:])[13:])

    def test_words_are_what_white_space_separates(self):
        self.assertEqual(len(evaluate.WORD.findall(" one\ttwo\x1cstill\n\nthree\u00a0four\u3000")), 4)


class Program(unittest.TestCase):
    """The figures of `photon score -json`, with the model that is part of it."""

    @classmethod
    def setUpClass(cls):
        if not shutil.which("go"):
            raise unittest.SkipTest("the go command is not installed")
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.program = os.path.join(directory.name, "photon")
        subprocess.run(["go", "build", "-o", cls.program, "./cmd/photon"], cwd=ROOT, check=True)
        cls.model = evaluate.load(STORIES).eval()
        cls.tokenizer = bpe.load(os.path.join(STORIES, "tokenizer.json"))

    def photon(self, text, *arguments):
        command = [self.program, "score", "-json", *arguments, "-"]
        return json.loads(subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout)

    def compare(self, have, want, keys):
        for key in keys:
            self.assertEqual(have[key], want[key], key)
        self.assertAlmostEqual(have["nats"] / have["tokens"], want["nats"] / want["tokens"], delta=AGREEMENT)

    def test_documents(self):
        text = "\n<|endoftext|>\n".join(documents())
        for cut in ((0, 0), (256, 0), (200, 50)):
            with self.subTest(context=cut[0], stride=cut[1]):
                have = self.photon(text, "-context", str(cut[0]), "-stride", str(cut[1]), "-by", "position")
                want = evaluate.score(self.model, self.tokenizer, documents(), *cut)
                self.compare(have, want, ("documents", "tokens", "words", "bytes"))
                self.assertAlmostEqual(have["word_perplexity"] / want["word_perplexity"], 1, delta=1e-3)
                self.assertEqual(len(have["by_position"]), len(want["by_position"]))
                self.assertGreater(len(have["by_position"]), 2)
                for a, b in zip(have["by_position"], want["by_position"]):
                    self.assertEqual((a["from"], a["to"], a["tokens"]), (b["from"], b["to"], b["tokens"]))
                    self.assertAlmostEqual(a["nats_per_token"], b["nats_per_token"], delta=AGREEMENT)

    def test_each_token(self):
        """Not their sums alone: documents of one token more and more differ by that token."""
        text = STORY[:60]
        ids = self.tokenizer.encode(text)
        whole = evaluate.nats(self.model, torch.tensor(ids)).detach()
        before = 0.0
        for n in range(1, len(ids) + 1):
            have = self.photon(self.tokenizer.decode(ids[:n]))
            self.assertEqual(have["tokens"], n)
            self.assertAlmostEqual(have["nats"] - before, whole[n - 1].item(), delta=2 * AGREEMENT)
            before = have["nats"]

    def test_lambada(self):
        have = self.photon("".join(json.dumps({"text": t}) + "\n" for t in LAST_WORDS), "-lambada")
        want = evaluate.lambada(self.model, self.tokenizer, LAST_WORDS)
        self.compare(have, want, ("texts", "correct", "tokens", "accuracy"))
        self.assertTrue(0 < have["correct"] < have["texts"], "nothing is told apart: choose other last words")
        self.assertAlmostEqual(have["perplexity"] / want["perplexity"], 1, delta=1e-3)


if __name__ == "__main__":
    unittest.main()
