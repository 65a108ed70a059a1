"""The paper's parameter counts, to the digit, and presets that build."""

import unittest

import presets
import tensors

PAPER = {
    "photon-600m": 646_399_104, "photon-900m": 907_162_368, "photon-1.2b": 1_229_531_520,
    "block-600m": 629_770_752, "block-900m": 887_878_656, "block-1.2b": 1_207_395_840,
    "vanilla-600m": 610_915_968, "vanilla-900m": 867_114_752, "vanilla-1.2b": 1_184_657_280,
}


class Presets(unittest.TestCase):
    def test_parameter_counts_are_the_papers(self):
        for name, want in PAPER.items():
            with self.subTest(preset=name):
                cfg = presets.config(name)
                # The paper's table leaves the start latent out.
                start = 0 if cfg.flat else cfg.levels[-1].encoder.hidden_size
                self.assertEqual(tensors.count(cfg) - start, want)

    def test_every_preset_survives_its_config_file(self):
        for name in presets.PRESETS:
            with self.subTest(preset=name):
                self.assertEqual(presets.config(name), presets.PRESETS[name])

    def test_unknown_name(self):
        with self.assertRaisesRegex(ValueError, "photon-600m"):
            presets.config("photon-7b")


if __name__ == "__main__":
    unittest.main()
