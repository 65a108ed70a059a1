"""flats.py: the committed files are what it computes, every part of the arithmetic shows in them, and the parts are right."""

import os
import unittest

import numpy as np

import flats

DIRECTORY = os.path.join(os.path.dirname(__file__), "..", "testdata", "flats")


class Flats(unittest.TestCase):
    def test_committed_files_are_fresh(self):
        self.assertEqual(sorted(os.listdir(DIRECTORY)), sorted(flats.CASES))
        for name in flats.CASES:
            with self.subTest(model=name):
                flats.check(name, os.path.join(DIRECTORY, name))

    def test_every_tensor_and_key_shows(self):
        """With any one tensor upside down, and without any one key of the arithmetic, the logits are others."""
        for name, (_, cfg) in flats.CASES.items():
            weights = flats.random_weights(name, cfg)
            ids = np.arange(30) * 7 % cfg["vocab_size"]
            want = flats.logits(cfg, weights, ids)
            for key in weights:
                layer = int(key.split(".")[2]) if ".layers." in key else 0
                if key.endswith("k_proj.bias") and not flats.rotates(cfg, layer):
                    continue  # it adds the same to all scores of a query
                changed = dict(weights, **{key: weights[key][::-1]})
                with self.subTest(model=name, tensor=key):
                    self.assertGreater(np.abs(flats.logits(cfg, changed, ids) - want).max(), 1e-3)
            for key, value in {"rope_scaling": None, "rope_parameters": None, "no_rope_layers": [1] * 4, "rope_theta": 30.0,
                               "use_sliding_window": False, "sliding_window": 3, "rms_norm_eps": 0.1}.items():
                if cfg.get(key) and (key != "sliding_window" or cfg.get("use_sliding_window")):
                    if key == "no_rope_layers" and cfg[key] == value:
                        continue
                    with self.subTest(model=name, key=key):
                        self.assertGreater(np.abs(flats.logits(dict(cfg, **{key: value}), weights, ids) - want).max(), 1e-3)

    def test_rotation_is_relative(self):
        """A query and a key turned alike keep their product."""
        rng = np.random.RandomState(0)
        q, k = rng.randn(2, 1, 1, 8)
        f = flats.frequencies({"model_type": "llama"}, 8)
        dots = [(flats.rotate(q, (p + 5) * f[None]) * flats.rotate(k, p * f[None])).sum() for p in (0, 3, 1000)]
        np.testing.assert_allclose(dots, dots[0], rtol=1e-9)

    def test_llama3_scaling(self):
        """Short waves stay, long ones are divided, and between the two ends nothing jumps."""
        scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 8192}
        cfg = {"model_type": "llama", "rope_theta": 500000.0}
        plain = flats.frequencies(cfg, 128)
        ratio = plain / flats.frequencies(dict(cfg, rope_scaling=scaling), 128)
        waves = 8192 * plain / (2 * np.pi)
        np.testing.assert_allclose(ratio[waves > 4], 1)
        np.testing.assert_allclose(ratio[waves < 1], 8)
        self.assertTrue((np.diff(ratio) >= -1e-12).all())
        self.assertTrue(((ratio[(waves > 1) & (waves < 4)] > 1) & (ratio[(waves > 1) & (waves < 4)] < 8)).all())

    def test_window_hides_what_is_further_back(self):
        q, v = np.zeros((6, 1, 2)), np.arange(12.0).reshape(6, 1, 2)
        np.testing.assert_allclose(flats.attend(q, q, v, 3)[5, 0], v[3:, 0].mean(0))
        np.testing.assert_allclose(flats.attend(q, q, v, 0)[5, 0], v[:, 0].mean(0))


if __name__ == "__main__":
    unittest.main()
