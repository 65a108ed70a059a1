"""bench/scale.py and bench/chats.py against closed forms."""

import math
import os
import sys
import unittest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(ROOT, "bench"))

import chats  # noqa: E402
import scale  # noqa: E402


def flat(value):
    return scale.Curve({0: value, 1 << 20: value})


def form(decode, prefill, gain=None, state=1.0):
    return scale.Form("", "", flat(state), flat(decode), flat(prefill), gain or {1: 1})


def waiting(servers, load):
    """Erlang's C: the mean number in M/M/c, of whom load are served in the mean."""
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return load + last / (sum(terms) + last) * load / (servers - load)


class Simulation(unittest.TestCase):
    # Very many chats that think for long: turns arrive by a Poisson process, however long an answer takes.
    many = scale.Given(chats=20000, think=10000, turns=1e12, context=1024, asked=100, answer=100, network=math.inf, coding=math.inf)

    def run_one(self, form, machines=1, given=None, seconds=12000, **more):
        return chats.simulate(form, given or self.many, machines, seconds=seconds, warm=1000, **more)

    def test_prompts_share_a_machine(self):
        """M/G/1 with shared service: the mean time there is S/(1 − ρ), 2 turns a second of 0.35 s."""
        out = self.run_one(form(1e-9, 0.0035))
        self.assertAlmostEqual(sum(out["firsts"]) / len(out["firsts"]), 0.35 / 0.3, delta=0.06)

    def test_texts_share_a_machine(self):
        """Texts that go at full speed up to c of them, and share beyond: M/M/c's mean number (Erlang's C)."""
        servers, token = 4, 0.016  # 2 turns a second of 101 tokens: 3.2 of 4 in work
        class Servers(scale.Form):
            def round(self, n, depth):
                return self.decode.at(depth) * max(1, n / servers)
        f = Servers("", "", flat(1.0), flat(token), flat(1e-9), {1: 1})
        out = self.run_one(f)
        self.assertAlmostEqual(out["answering"], waiting(servers, out["rate"] * 101 * token), delta=0.25)

    def test_littles_law(self):
        """Chats that are open are those that arrive in a second times the seconds that they stay, here hardly longer than they think."""
        given = scale.Given(chats=500, think=20, turns=5, context=4096, asked=50, answer=50)
        out = self.run_one(form(0.002, 0.0001), 10, given, 4000)
        rate, alone = given.chats / given.think / given.turns, 4096 * 0.0001 + given.turns * (50 * 0.0001 + 51 * 0.002)
        self.assertAlmostEqual(out["open"], rate * ((given.turns - 1) * given.think + alone), delta=0.04 * out["open"])
        self.assertAlmostEqual(out["rate"], rate * given.turns, delta=0.03 * rate * given.turns)

    def test_least_is_where_it_breaks(self):
        """A machine fewer than the closed form says leaves turns behind; a third more does not."""
        given = scale.Given(chats=1000, think=100, turns=1e12, context=4096, asked=200, answer=50)
        f = form(0.01, 0.001)
        need = f.least(given)
        self.assertAlmostEqual(need, 10 * (0.2 + 0.5), delta=1e-6)
        self.assertLess(self.run_one(f, int(need) - 2, given, 4000)["rate"], 9.3)
        self.assertGreater(self.run_one(f, math.ceil(need * 1.34), given, 4000)["rate"], 9.7)

    def test_what_does_not_fit_is_fetched(self):
        """Of 100 chats a machine holds 25: three quarters of the turns fetch a state, and wait at least for the network."""
        given = scale.Given(chats=100, think=1000, turns=1e12, context=1000, asked=10, answer=2, memory=26, network=scale.GIB / 2, coding=1e12)
        f = form(1e-4, 1.0, state=scale.GIB * 1.0)
        self.assertEqual(f.held(given), 25)
        f.prefill = scale.Curve({0: 1.0, 999: 1.0, 1000: 1e-4})  # to read a text again takes long
        out = self.run_one(f, 1, given, 40000)
        self.assertFalse(out["recompute"])
        self.assertAlmostEqual(out["fetched"] / out["turns"], 0.75, delta=0.03)
        self.assertGreater(sorted(out["firsts"])[len(out["firsts"]) // 2], 2)

    def test_a_seed_is_a_run(self):
        given = scale.Given(chats=300, think=20)
        one, two, three = (self.run_one(form(0.002, 1e-5), 8, given, 1500, seed=s) for s in (1, 1, 2))
        self.assertEqual(one, two)
        self.assertNotEqual(one["firsts"], three["firsts"])


def row(preset, test, depth, others=0.01, **more):
    return dict({"wanted": "1", "preset": preset, "mode": "hiergen", "weights": "int8", "test": test, "depth": str(depth), "others": str(others), "model_bytes": "7e8"}, **more)


class Rows(unittest.TestCase):
    def rows(self, **spoiled):
        out = []
        for key in scale.FORMS:
            for depth, decode, prefill, state in ((0, 20, 400, 1e5), (1024, 10, 200, 1e8), (8192, 2, 50, 8e8)):
                out.append(row(f"{key}-600m", "long", depth, decode_per_second=str(decode), prefill_per_second=str(prefill), state=str(state), kv_read=str(state), **spoiled))
        return out

    def test_600m(self):
        """Curves go on beyond what was measured, the deepest row of many texts tells what they gain, and a disturbed row is no rate."""
        rows = self.rows() + [row("rival-600m", "long-many", d, texts=n, decode_per_second=x) for d, n, x in ((1024, "9", "1"), (8192, "8", "2.1"))]
        flat, rival = scale.forms("600M", rows)[:2]
        self.assertAlmostEqual(flat.decode.at(32768), 0.5 + (0.5 - 0.1) * 24576 / 7168)
        self.assertAlmostEqual(flat.state.at(8192), 8e8)
        self.assertFalse(flat.decode.reaches(32768))
        self.assertAlmostEqual(flat.prefill.sum(8192), 1024 * (1 / 400 + 1 / 200) / 2 + 7168 * (1 / 200 + 1 / 50) / 2)
        self.assertEqual(flat.gain, scale.GAINS["600M"])
        self.assertEqual(list(rival.gain), [1, 8])
        self.assertAlmostEqual(rival.round(8, 8192) / 8, 1 / 2.1, delta=1e-6)  # as measured
        spoiled = scale.forms("600M", self.rows(others=0.9))[0]
        self.assertIsNone(spoiled.decode)
        self.assertAlmostEqual(spoiled.state.at(8192), 8e8)
        for form in (flat, spoiled):  # tables are made with rates and without
            self.assertIn("none is enough" if form is flat else "not measured", scale.chats_table([form], scale.Given()))
            scale.moves_table([("600M", form)], scale.Given())

    def test_15m(self):
        found = scale.forms("15M", scale.results.read("speed.csv"))
        self.assertEqual([f.name for f in found], [scale.results.FORMS[k][0] for k in scale.FORMS])
        given = scale.Given()
        need = [f.least(given) for f in found]
        self.assertEqual(need, sorted(need, reverse=True))  # flat, rival, memory, bounded
        n, out = scale.enough(found[3], given)
        self.assertGreaterEqual(n, need[3])
        self.assertLessEqual(out["first"], given.first)
        self.assertGreaterEqual(out["pace"], given.pace)


if __name__ == "__main__":
    unittest.main()
