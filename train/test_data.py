"""data.py and corpus.py: what is packed comes back, and what does not belong together is refused."""

import json
import lzma
import os
import tempfile
import unittest

import numpy as np

import bpe
import corpus
import data

TEXTS = ["First story.\n\nIt has two paragraphs.", "Second.", "Third: naïve.", "Fourth"]


class Packed(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.tokenizer = self.make_tokenizer("a.json", ["First story. First paragraphs."])
        self.text = self.path("text.txt.xz")
        with lzma.open(self.text, "wt", encoding="utf-8") as file:
            file.write("".join(text + "\n<|endoftext|>\n" for text in TEXTS))
        self.packed = self.path("packed.bin")
        self.manifest = data.pack([self.text], self.tokenizer, self.packed)

    def path(self, name):
        return os.path.join(self.directory.name, name)

    def make_tokenizer(self, name, texts, size=262):
        bpe.save(self.path(name), bpe._train_own(bpe.count_words(texts * 2), size))
        return bpe.load(self.path(name))

    def edit(self, **changes):
        path = self.path("packed.json")
        with open(path) as file:
            manifest = json.load(file)
        with open(path, "w") as file:
            json.dump({**manifest, **changes}, file)

    def test_documents_come_back(self):
        packed = data.open_packed(self.packed, self.tokenizer, verify=True)
        self.assertEqual(packed.ids.dtype, np.uint16)
        self.assertEqual(len(packed), self.manifest["tokens"])
        self.assertEqual(self.manifest["bytes"], sum(len(text.encode()) for text in TEXTS))
        for i, text in enumerate(TEXTS):
            *ids, last = packed.document(i).tolist()
            self.assertEqual((self.tokenizer.decode(ids), last), (text, self.tokenizer.eos_token_id))

    def test_document_ranges(self):
        self.assertEqual(list(corpus.documents(self.text + "@1:3")), TEXTS[1:3])
        self.assertEqual(list(corpus.documents(self.text + "@2:")), TEXTS[2:])
        for bad in ("@3:9", "@3:3", "@x:4", "@2"):
            with self.subTest(range=bad), self.assertRaises(ValueError):
                list(corpus.documents(self.text + bad))

    def test_another_tokenizer_is_refused(self):
        with self.assertRaisesRegex(ValueError, "packed with tokenizer"):
            data.open_packed(self.packed, self.make_tokenizer("b.json", ["other words, other merges"]))
        with self.assertRaisesRegex(ValueError, "vocabulary of 262"):
            data.open_packed(self.packed, self.make_tokenizer("c.json", ["First story. First paragraphs."], 260))

    def test_damage_is_refused(self):
        with open(self.packed, "r+b") as file:
            file.seek(4)
            file.write(b"\x01\x01")
        data.open_packed(self.packed, self.tokenizer)  # a length does not show it
        with self.assertRaisesRegex(ValueError, "hash"):
            data.open_packed(self.packed, self.tokenizer, verify=True)
        with open(self.packed, "ab") as file:
            file.write(b"\0")
        with self.assertRaisesRegex(ValueError, "bytes"):
            data.open_packed(self.packed)

    def test_damaged_offsets_are_refused(self):
        offsets = np.fromfile(self.path("packed.offsets"), "<i8")
        offsets[1] = offsets[2] + 1
        offsets.tofile(self.path("packed.offsets"))
        with self.assertRaisesRegex(ValueError, "offsets"):
            data.open_packed(self.packed)

    def test_manifest_is_checked(self):
        for changes, message in (({"format": "photon-packed-0"}, "format"), ({"dtype": "float16"}, "dtype"),
                                 ({"vocab_size": 70000}, "dtype"), ({"documents": 3}, "offsets"), ({"tokens": 2}, "bytes")):
            with self.subTest(changes=changes):
                self.setUp()
                self.edit(**changes)
                with self.assertRaisesRegex(ValueError, message):
                    data.open_packed(self.packed)


if __name__ == "__main__":
    unittest.main()
