"""bpe.py: GPT-2's pre-tokens, training, the file, round trips."""

import json
import os
import random
import tempfile
import unittest
from collections import Counter

import bpe

ODD = [
    "", " ", "\n", "\n\n\n  x", "  two  spaces  ", "tabs\t\tand\r\nreturns\r", "it's we'll I'D they're 'tis", "1234567 ½ Ⅷ ٣",
    "naïve Ångström ß ﬁ", "e\u0301 combining", "日本語と中文", "🙂👩‍👩‍👧 🇳🇱", "\u00a0nbsp\u2003em\u3000wide\u2028line", "\x00\x01\x1c\x1f\x7f",
    "\ufeffbom\ufffd", "<|endoftext|", "<|endoftext|>", "a<|endoftext|>b<|endoftext|><|endoftext|>", "'s'S 's",
]
CORPUS = ["the cat sat on the mat; the other cat's hat", "then they went there, and the weather was better"] * 3


def small(size=280):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "tokenizer.json")
        bpe.save(path, bpe._train_own(bpe.count_words(CORPUS), size))
        with open(path, encoding="utf-8") as file:
            return bpe.load(path), json.load(file)


class Pattern(unittest.TestCase):
    def test_pre_tokens_are_gpt2s(self):
        for text, want in {
            "Hello world's  end": ["Hello", " world", "'s", " ", " end"],
            "a\n\nb": ["a", "\n", "\n", "b"],
            "x  ": ["x", "  "],
            "we'll_go 12ab": ["we", "'ll", "_", "go", " 12", "ab"],
            "don't 'S": ["don", "'t", " '", "S"],
            " ½Ⅷ٣ ²": [" ½Ⅷ٣", " ²"],
            "日本 語": ["日本", " 語"],
            "e\u0301!": ["e", "\u0301!"],
            "\u3000x\u00a0y": ["\u3000", "x", "\u00a0", "y"],
            "\x1c\x1d": ["\x1c\x1d"],
        }.items():
            with self.subTest(text=text):
                self.assertEqual(bpe.PATTERN.findall(text), want)

    def test_pre_tokens_cover_the_text(self):
        generator = random.Random(1)
        for _ in range(300):
            text = "".join(chr(generator.choice([generator.randrange(128), generator.randrange(0xD800),
                                                 generator.randrange(0xE000, 0x110000)])) for _ in range(40))
            self.assertEqual("".join(bpe.PATTERN.findall(text)), text)


class Training(unittest.TestCase):
    def test_merges_are_those_of_counting_afresh_each_time(self):
        """The incremental trainer against the definition: the most frequent pair, ties to the smaller ids."""
        words = {tuple(w.encode()): n for w, n in bpe.count_words(CORPUS).items()}
        tokens, want = [bytes([b]) for b in range(256)], []
        while len(tokens) < 279:
            counts = Counter()
            for word, n in words.items():
                for pair in zip(word, word[1:]):
                    counts[pair] += n
            pair = min(counts, key=lambda p: (-counts[p], p))
            want.append((tokens[pair[0]], tokens[pair[1]]))
            tokens.append(tokens[pair[0]] + tokens[pair[1]])
            words = {tuple(bpe._join(word, pair, len(tokens) - 1)): n for word, n in words.items()}
        self.assertEqual(bpe._train_own(bpe.count_words(CORPUS), 280), want)

    def test_vocabulary_too_small(self):
        with self.assertRaisesRegex(ValueError, "257"):
            bpe.train(CORPUS, 100)


class File(unittest.TestCase):
    def test_ids(self):
        tokenizer, spec = small()
        self.assertEqual(tokenizer.vocab_size, 280)
        self.assertEqual(tokenizer.eos_token_id, 279)
        self.assertEqual(tokenizer.encode("A<|endoftext|>B"), [65, 279, 66])
        self.assertEqual(sorted(spec["model"]["vocab"].values()), list(range(280)))
        self.assertEqual(spec["model"]["vocab"]["Ġ"], 32)
        self.assertEqual(len(spec["model"]["merges"]), 23)
        self.assertLess(len(tokenizer.encode(CORPUS[0])), len(CORPUS[0]) // 2)

    def test_round_trip_of_odd_strings(self):
        tokenizer, _ = small()
        for text in ODD:
            with self.subTest(text=text):
                self.assertEqual(tokenizer.decode(tokenizer.encode(text)), text)

    def test_another_pre_tokenizer_is_refused(self):
        _, spec = small()
        spec["pre_tokenizer"] = {"type": "Whitespace"}
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "tokenizer.json")
            with open(path, "w") as file:
                json.dump(spec, file)
            with self.assertRaisesRegex(ValueError, "Whitespace"):
                bpe.load(path)

    def test_agrees_with_hugging_face(self):
        try:
            import tokenizers
        except ImportError:
            self.skipTest("tokenizers is not installed")
        tokenizer, spec = small()
        theirs = tokenizers.Tokenizer.from_str(json.dumps(spec))
        for text in ODD + CORPUS:
            with self.subTest(text=text):
                self.assertEqual(tokenizer.encode(text), theirs.encode(text).ids)


if __name__ == "__main__":
    unittest.main()
