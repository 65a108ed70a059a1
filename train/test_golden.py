"""golden.py: the committed files are what the code computes, and a difference is seen."""

import os
import shutil
import tempfile
import unittest

import numpy as np

import golden
import tensorfile

DIRECTORY = os.path.join(os.path.dirname(__file__), "..", "testdata", "golden")


class Golden(unittest.TestCase):
    def test_committed_files_are_fresh(self):
        self.assertEqual(sorted(os.listdir(DIRECTORY)), sorted(golden.CASES))
        for name in golden.CASES:
            with self.subTest(model=name):
                golden.check(name, os.path.join(DIRECTORY, name))

    def test_a_difference_is_seen(self):
        name = "flat-gqa-f32"
        with tempfile.TemporaryDirectory() as directory:
            for file in ("golden.safetensors", "model.safetensors"):
                copy = os.path.join(directory, file.split(".")[0])
                shutil.copytree(os.path.join(DIRECTORY, name), copy)
                path = os.path.join(copy, file)
                tensors = {key: (dtype, array.copy()) for key, (dtype, array) in tensorfile.read(path).items()}
                _, array = tensors["logits" if "logits" in tensors else "lm_head.weight"]
                array[3, 3] += 2e-5 * np.abs(array).max()
                tensorfile.write(path, tensors)
                with self.subTest(file=file), self.assertRaises(ValueError):
                    golden.check(name, copy)

    def test_no_weight_is_zero_or_one(self):
        for name, case in golden.CASES.items():
            for key, x in golden.random_weights(case.config, name).items():
                with self.subTest(model=name, tensor=key):
                    self.assertGreater(np.unique(x).size, 0.9 * x.size)
                    self.assertFalse(((x == 0) | (x == 1)).any())

    def test_recgen_starts_as_hiergen_and_leaves_it(self):
        """The first unit is exact; the next ones are predicted from predictions."""
        for name, case in golden.CASES.items():
            if not case.generate or case.config.news():
                continue
            file = os.path.join(DIRECTORY, name, "golden.safetensors")
            stored = {key: x.tolist() for key, (_, x) in tensorfile.read(file).items()}
            exact, recursive = stored["hiergen_tokens"], stored["recgen_tokens"]
            first = case.config.levels[0].chunk_size
            with self.subTest(model=name):
                self.assertEqual(len(recursive), 3 * case.config.meta_context)
                self.assertEqual(recursive[:first], exact[:first])
                self.assertNotEqual(recursive, exact)
                self.assertEqual(np.argmax(stored["recgen_logits"], -1).tolist(), recursive)


if __name__ == "__main__":
    unittest.main()
