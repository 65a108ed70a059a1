"""Text for pupils that no teacher has learned by heart: beginnings of documents, which a model continues.

    python3 continued.py cut DOCUMENTS --times 6 > in.jsonl
    photon batch -temp 1 -top-k 0 -top-p 1 -min-p 0.004 -n 2200 in.jsonl out.jsonl
    python3 continued.py join in.jsonl out.jsonl > continued.txt

DOCUMENTS are those of corpus.py: FILE[.xz][@FIRST:LAST]. Each is cut, once in every round and at a place drawn anew,
behind a word between 2 % and 20 % of it (--most): the more of it stands there, the more a pupil learns by heart.
"""

import argparse
import json
import random
import sys

import corpus


def cut(document, draw, most=0.2):
    """The document up to the end of a word, at most about this share of it."""
    at = int(len(document) * draw.uniform(0.02, most))
    while at < len(document) and not document[at].isspace():
        at += 1
    return document[:at]


def joined(prompts, answers):
    """Documents from the lines of both files, in the order of the answers; a last line that was cut off is left out."""
    beginnings = [json.loads(line)["prompt"] for line in prompts]
    for line in answers:
        if line.endswith("\n"):
            answer = json.loads(line)
            yield beginnings[answer["index"]] + answer["text"].rstrip("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    one = kinds.add_parser("cut")
    one.add_argument("documents")
    one.add_argument("--times", type=int, default=1)
    one.add_argument("--most", type=float, default=0.2, metavar="SHARE")
    one.add_argument("--seed", type=int, default=7)
    two = kinds.add_parser("join")
    two.add_argument("prompts")
    two.add_argument("answers")
    options = parser.parse_args()
    if options.kind == "cut":
        documents, draw = list(corpus.documents(options.documents)), random.Random(options.seed)
        for _ in range(options.times):
            for document in draw.sample(documents, len(documents)):
                print(json.dumps({"prompt": cut(document, draw, options.most)}))
        return
    with open(options.prompts, encoding="utf-8") as prompts, open(options.answers, encoding="utf-8") as answers:
        for document in joined(prompts, answers):
            sys.stdout.write(f"{document}\n{corpus.SEPARATOR}\n")


if __name__ == "__main__":
    main()
