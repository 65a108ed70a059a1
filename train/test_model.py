"""model.py: gradients, causality, the first loss, windows."""

import copy
import math
import unittest

import torch

import golden
import model as photon
import tensors


def ids_for(cfg, batch, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(cfg.vocab_size, (batch, length), generator=generator)


class FirstStep(unittest.TestCase):
    def test_every_parameter_gets_a_gradient(self):
        for name, case in golden.CASES.items():
            cfg = case.config
            model = photon.build(cfg).init_weights(1)
            model.loss(ids_for(cfg, 4, 4 * cfg.meta_context + 5)).backward()
            for key, parameter in model.named_parameters():
                with self.subTest(model=name, tensor=key):
                    self.assertIsNotNone(parameter.grad)
                    gradient = parameter.grad
                    self.assertTrue(torch.isfinite(gradient).all())
                    if "embed_tokens" not in key:  # tokens that the text lacks get none
                        self.assertEqual(int((gradient == 0).sum()), 0)
                    self.assertGreater(gradient.abs().max().item(), 1e-8)

    def test_loss_starts_near_uniform(self):
        for name, case in golden.CASES.items():
            cfg = case.config
            model = photon.build(cfg).init_weights(1)
            with self.subTest(model=name), torch.no_grad():
                loss = model.loss(ids_for(cfg, 8, 4 * cfg.meta_context)).item()
                self.assertAlmostEqual(loss, math.log(cfg.vocab_size), delta=0.1)

    def test_alpha_adds_the_reconstruction_term(self):
        cfg = golden.CASES["three-local-bf16"].config
        model = photon.build(cfg).init_weights(1)
        ids = ids_for(cfg, 2, 48)
        with torch.no_grad():
            states = model.states(ids)
            cosines = [torch.cosine_similarity(states[f"Xhat{l}"], states[f"X{l}"], dim=-1).mean() for l in (1, 2)]
            want = model.loss(ids) + 0.3 * (1 - sum(cosines) / 2)
            self.assertAlmostEqual(model.loss(ids, alpha=0.3).item(), want.item(), places=5)


    def test_what_teachers_predict_is_part_of_the_loss(self):
        for name in ("flat-gqa-f32", "unpack1-added-stream-tied-f32"):
            cfg = golden.CASES[name].config
            model, *teachers = (photon.build(cfg).init_weights(seed) for seed in (1, 2, 3))
            for each in (model, *teachers):  # sharper than at the start
                for p in each.parameters():
                    p.data *= 2
            ids = ids_for(cfg, 2, 48)
            mask = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.7
            with self.subTest(model=name), torch.no_grad():
                soft = sum(torch.softmax(teacher(ids), -1) for teacher in teachers) / 2
                cross = -(soft * torch.log_softmax(model(ids), -1)).sum(-1)
                cross, counted = (cross[:, :-1], mask[:, 1:]) if cfg.flat else (cross, mask)
                want = 0.25 * model.loss(ids, mask=mask) + 0.75 * cross[counted].mean()
                got = model.loss(ids, mask=mask, teachers=teachers, taught=0.75)
                self.assertAlmostEqual(got.item(), want.item(), places=5)
                self.assertGreater(abs(got.item() - model.loss(ids, mask=mask).item()), 0.01)
                shares = torch.tensor([[0.0], [1.0]])
                each = [model.loss(ids[i : i + 1], mask=mask[i : i + 1], teachers=teachers, taught=i) for i in (0, 1)]
                rows = counted.sum(1)
                want = (each[0] * rows[0] + each[1] * rows[1]) / rows.sum()
                got = model.loss(ids, mask=mask, teachers=teachers, taught=shares)
                self.assertAlmostEqual(got.item(), want.item(), places=5)


class Causality(unittest.TestCase):
    """Changes each token in turn and looks at which rows of logits move."""

    @torch.no_grad()
    def moved(self, name):
        """[p, i]: by how much row i moves when token p changes, and the case's configuration."""
        cfg = golden.CASES[name].config
        model = photon.build(cfg).double()
        model.load_state_dict({k: torch.from_numpy(x) for k, x in golden.random_weights(cfg, name).items()})
        length = 24 if cfg.flat else 2 * cfg.meta_context + max(3, cfg.meta_context // 2)
        ids = ids_for(cfg, 1, length).repeat(length + 1, 1)
        ids.diagonal().add_(1 + cfg.vocab_size // 2).remainder_(cfg.vocab_size)
        logits = model(ids)
        return (logits[:-1] - logits[-1]).abs().amax(-1), cfg

    def test_nothing_before_moves_and_something_after_does(self):
        for name in golden.CASES:
            with self.subTest(model=name):
                moved, cfg = self.moved(name)
                first = 0 if cfg.flat else 1  # the first row that may know token p is p, or p + 1
                self.assertLess(moved.tril(first - 1).max().item(), 1e-11)
                after = moved.diagonal(first)
                self.assertGreater(after.min().item(), 1e-7)

    def test_no_blind_spot(self):
        """Where a layer of the top encoder or a memory of tokens sees all, each token depends on every token before it."""
        for name, case in golden.CASES.items():
            cfg = case.config
            memories = cfg.levels[0].decoder.memories if cfg.levels else ()
            of_tokens = [m for m in memories if m.level == m.unpack and not m.sliding_window]
            if all((cfg.stack if cfg.flat else cfg.levels[-1].encoder).windows) and not of_tokens:
                continue
            with self.subTest(model=name):
                moved, cfg = self.moved(name)
                first = 0 if cfg.flat else 1
                later = torch.ones_like(moved).triu(first).bool()
                self.assertGreater(moved[later].min().item(), 1e-9)

    def test_padding_does_not_matter(self):
        for name, case in golden.CASES.items():
            cfg = case.config
            model = photon.build(cfg).init_weights(3).double()
            ids = ids_for(cfg, 1, 3 * cfg.meta_context)
            with self.subTest(model=name), torch.no_grad():
                whole = model(ids)
                for length in (1, cfg.meta_context - 1, cfg.meta_context + 1):
                    if length > 0:
                        torch.testing.assert_close(model(ids[:, :length]), whole[:, :length], rtol=0, atol=1e-11)


class Attention(unittest.TestCase):
    def test_every_path_equals_row_by_row_attention(self):
        generator = torch.Generator().manual_seed(5)
        for rows in (1, 6, 7, 13, 40):
            for window in (0, 1, 2, 3, 5, 8):
                with self.subTest(rows=rows, window=window):
                    q, k, v = torch.randn(3, 2, 3, rows, 4, dtype=torch.float64, generator=generator)
                    want = torch.empty_like(q)
                    for i in range(rows):
                        seen = slice(max(0, i + 1 - window) if window else 0, i + 1)
                        scores = (k[:, :, seen] @ q[:, :, i, :, None])[..., 0] / 2  # head_dim^-1/2
                        want[:, :, i] = (scores.softmax(-1)[..., None] * v[:, :, seen]).sum(2)
                    torch.testing.assert_close(photon.attention(q, k, v, window), want, rtol=0, atol=1e-12)


class Names(unittest.TestCase):
    def test_state_dict_has_the_names_and_shapes_of_the_file(self):
        for name, case in golden.CASES.items():
            state = photon.build(case.config).state_dict()
            with self.subTest(model=name):
                self.assertEqual({k: tuple(x.shape) for k, x in state.items()}, tensors.shapes(case.config))

    def test_config_round_trip(self):
        for name, case in golden.CASES.items():
            with self.subTest(model=name):
                self.assertEqual(photon.Config.from_dict(case.config.to_dict()), case.config)

    def test_format_1_does_not_know_the_keys_of_format_2(self):
        for name, case in golden.CASES.items():
            if case.config.news():
                with self.subTest(model=name), self.assertRaisesRegex(ValueError, "format_version 1 does not know"):
                    photon.Config.from_dict({**case.config.to_dict(), "format_version": 1})
        old = golden.CASES["photon-local-f32"].config.to_dict()
        for key, value in (("content", "embedding"), ("token_encoder", None)):
            with self.subTest(key=key), self.assertRaisesRegex(ValueError, f"does not know {key}"):
                photon.Config.from_dict({**old, key: value})
        old["levels"][1]["decoder"]["memories"] = []
        with self.assertRaisesRegex(ValueError, "does not know memories"):
            photon.Config.from_dict(old)

    def test_what_does_not_fit_together_is_refused(self):
        def change(name, why, *path_and_value):
            *path, key, value = path_and_value
            spec = golden.CASES[name].config.to_dict()
            at = spec
            for step in path:
                at = at[step]
            at[key] = value
            with self.subTest(model=name, key=key, value=value), self.assertRaisesRegex(ValueError, why):
                photon.Config.from_dict(spec)

        added, memory = ["levels", 0, "decoder"], ["levels", 0, "decoder", "memories", 0]
        change("memory0-added-stream-f32", "token_encoder.hidden_size", "token_encoder", "hidden_size", 24)
        change("memory0-added-stream-f32", "content", "content", "tokens")
        change("memory1-added-local-tied-bf16", "content .*states", *added, "hidden_size", 28)
        change("memory0-added-stream-f32", "at least 4", *added, "sliding_window", [0, 3])
        change("memory0-added-stream-f32", "one window a layer", *added, "sliding_window", [0])
        change("memory0-added-stream-f32", "one window a layer", "token_encoder", "sliding_window", [0, 1, 2])
        change("memory0-added-stream-f32", "memory's level", *memory, "level", 2)
        change("three-memory-bf16", "memory's level", "levels", 2, "decoder", "memories", 0, "level", 1)
        change("memory0-added-stream-f32", "memory's layers", *memory, "layers", [])
        change("memory0-added-stream-f32", "memory's layers", *memory, "layers", [1, 1])
        change("memory0-added-stream-f32", "memory's layers", *memory, "layers", [1, 0])
        change("memory0-added-stream-f32", "memory's layers", *memory, "layers", [2])
        change("memory0-added-stream-f32", "must divide", *memory, "num_key_value_heads", 4)
        change("memory0-added-stream-f32", "be even", *added, "head_dim", 5)
        for value in (0.5, -1.0, float("inf"), float("nan")):
            change("memory0-added-stream-f32", "rope_theta must be", *memory, "rope_theta", value)
        for value in (-1, 1.5, None):
            change("memory0-added-stream-f32", "sliding_window must be", *memory, "sliding_window", value)
        change("memory0-added-stream-f32", "rms_norm_eps", "rms_norm_eps", 0)
        change("memory0-added-stream-f32", "levels is empty", "levels", [])
        many = [vars(golden.memory(0, [1], 1, 1, 8))] * 65
        change("memory0-added-stream-f32", "at most 64", *added, "memories", many)
        # Only what has been grouped can be unpacked: level 1 at least, and the level of the decoder at least.
        change("memory0-added-stream-f32", r"memory's level must be 1 \.\.\. 1", *memory, "unpack", True)
        change("unpack1-added-stream-tied-f32", r"memory's level must be 1 \.\.\. 1", *memory, "level", 0)
        change("unpack1-added-stream-tied-f32", r"memory's level must be 1 \.\.\. 1", *memory, "level", 2)
        change("unpack2-prefix-local-f16", r"memory's level must be 2 \.\.\. 2", "levels", 1, "decoder", "memories", 0, "level", 1)
        change("three-unpack-bf16", r"memory's level must be 1 \.\.\. 3", *memory, "level", 4)
        for value in (1, 0, "true", None):
            change("unpack1-added-stream-tied-f32", "true or false", *memory, "unpack", value)
        change("memory0-added-stream-f32", "not negative", "levels", 0, "prefix_length", -1)
        change("flat-ministral-bf16", "layer_types", "layer_types", ["full_attention"])
        change("flat-ministral-bf16", "layer_types", "layer_types", ["chunked_attention"] * 3)

    def test_windows_of_flat_models(self):
        cfg = copy.deepcopy(golden.CASES["flat-ministral-bf16"].config)
        spec = cfg.to_dict()
        self.assertEqual((spec["sliding_window"], cfg.stack.windows), (7, [7, 0, 7]))
        cfg.stack = photon.StackConfig(**{**vars(cfg.stack), "sliding_window": [7, 0, 5]})
        with self.assertRaisesRegex(ValueError, "one window"):
            cfg.to_dict()
        for change in ({"layer_types": None}, {"sliding_window": None}):  # each leaves what "llama" does not have
            with self.assertRaisesRegex(ValueError, "no windows"):
                photon.Config.from_dict({**spec, "model_type": "llama", **change})
        plain = {**spec, "model_type": "llama", "sliding_window": None, "layer_types": ["full_attention"] * 3}
        self.assertEqual(photon.Config.from_dict(plain).stack.windows, [0, 0, 0])
        self.assertEqual(photon.Config.from_dict({**plain, "model_type": "mistral"}).stack.windows, [0, 0, 0])


if __name__ == "__main__":
    unittest.main()
