"""continued.py: beginnings end behind a word, and come back with what was written."""

import json
import random
import unittest

import continued


class Continued(unittest.TestCase):
    def test_a_beginning_ends_behind_a_word(self):
        document = "Once upon a time there was a hen.\n\nShe had a red boat, and nobody knew why."
        draw = random.Random(1)
        for _ in range(50):
            beginning = continued.cut(document, draw)
            self.assertTrue(document.startswith(beginning) and 0 < len(beginning) < len(document) / 2)
            self.assertTrue(document[len(beginning)].isspace())
        self.assertEqual(continued.cut("word", draw), "word")

    def test_answers_are_joined_to_their_beginnings(self):
        prompts = [json.dumps({"prompt": p}) + "\n" for p in ("A hen", "A boat")]
        written = (1, " sank.\n\nThe end.\n"), (0, " sat.")
        answers = [json.dumps({"index": i, "text": text}) + "\n" for i, text in written] + ['{"index": 1, "te']
        self.assertEqual(list(continued.joined(prompts, answers)), ["A boat sank.\n\nThe end.", "A hen sat."])


if __name__ == "__main__":
    unittest.main()
