"""RecGen judged: how well it predicts text, and how far it is from HierGen, on held-out packed text.

RecGen (docs/model.md, section 9) fixes what every later unit is conditioned on when the prompt ends: no token of the
continuation reaches it. Its likelihood of a text is therefore that of forced decoding: the true tokens are fed inside
each level-1 unit, and nowhere else. HierGen's is the model's own.

    python3 recgen.py (--model DIR | --checkpoint FILE.pt --tokenizer tokenizer.json) HELDOUT.bin
        [--prompt 256] [--metas 16] [--texts 64] [--greedy 4] [--batch 16] [--device cuda]

Texts are pieces of documents: a prompt of --prompt tokens, continued by --metas meta-contexts. Prints one JSON line:

hiergen_bits_per_byte, recgen_bits_per_byte   of the continuations, given the prompts
kl                      KL(HierGen || RecGen) in nats a token, both given the true tokens that they can see
agreement               share of these tokens where both have the same most likely token
greedy_agreement        share of the tokens of the first --greedy meta-contexts that are the same when both continue
                        the prompt greedily, each with its own tokens
greedy_same             tokens before their first difference, the mean over texts
by_meta_context         the first four by the distance from the prompt, in meta-contexts (the first is 1)
"""

import argparse
import json
import math
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

import bpe
import data
import evaluate

FIGURES = ("hiergen", "recgen", "kl", "agreement")  # of each token
SLICE = 4096  # rows whose logits are held at once


# --- RecGen -----------------------------------------------------------------------------------


def check(cfg):
    """Raises ValueError where RecGen cannot run."""
    if len(cfg.levels) < 2:
        raise ValueError(f"RecGen needs two levels or more, the model has {len(cfg.levels)}")
    if cfg.news():
        raise ValueError(f"RecGen cannot run a model with {cfg.news()[0]}")
    for i, level in enumerate(cfg.levels, 1):
        if level.stream:
            raise ValueError(f"RecGen needs chunk-local decoders, the one of level {i} is a stream")


@torch.no_grad()
def conditions(model, prompt, metas):
    """prompt [B, P], whole meta-contexts -> conditions of the level-1 units that follow [B, metas*C_<=L/C_1, D_1]."""
    top, out = model.levels[-1], []
    b, start = prompt.shape[0], model.start_latent.expand(prompt.shape[0], 1, -1)
    units = start[:, :0]  # what the top encoder reads
    if prompt.shape[1]:
        below = model.hidden(prompt)[f"X{len(model.levels) - 1}"]
        units = top.chunker(below.reshape(b, -1, top.chunk * below.shape[-1]))
    for _ in range(metas):
        condition = top.encoder(units)[:, -1:] if units.shape[1] else start
        children = decode_freely(top, condition)
        units = torch.cat((units, top.chunker(children.reshape(b, 1, -1))), dim=1)
        for level in reversed(model.levels[1:-1]):
            children = decode_freely(level, children)
        out.append(children)
    return torch.cat(out, dim=1)


def decode_freely(level, condition):
    """condition [B, n, D] -> the children [B, n*C, W], each fed back as the content of the next."""
    b, n, _ = condition.shape
    x = condition.new_zeros(b, n, level.chunk, level.decoder.norm.weight.shape[0])
    for j in range(level.chunk):  # child j is decoded from those before; what stands behind does not matter
        x[:, :, j] = level.decode(condition, x.flatten(1, 2), [], {}).view_as(x)[:, :, j]
    return x.flatten(1, 2)


def forced(model, units, ids):
    """units [B, n, D_1] and the true tokens ids [B, n*C_1] -> Xhat0 [B, n*C_1, W_1]."""
    return model.levels[0].decode(units, model.decoder(ids), [], {})


@torch.no_grad()
def greedy(model, units):
    """units [B, n, D_1] -> RecGen's greedy tokens [B, n*C_1], the units side by side."""
    b, n, _ = units.shape
    chunk = model.levels[0].chunk
    ids = torch.zeros(b, n, chunk, dtype=torch.long, device=units.device)
    for j in range(chunk):
        x = forced(model, units, ids.flatten(1)).view(b, n, chunk, -1)[:, :, j]
        ids[:, :, j] = model.project(x).argmax(-1)
    return ids.flatten(1)


@torch.no_grad()
def hiergen_greedy(model, prompt, tokens):
    """HierGen's greedy tokens [B, tokens] after prompt [B, P], one whole pass a token."""
    ids = prompt
    for _ in range(tokens):
        longer = F.pad(ids, (0, 1))
        x = model.hidden(longer)["Xhat0"][:, -1]
        longer[:, -1] = model.project(x).argmax(-1)
        ids = longer
    return ids[:, prompt.shape[1] :]


# --- the comparison ---------------------------------------------------------------------------


@torch.no_grad()
def compare(model, ids, prompt):
    """ids [B, T], T - prompt whole meta-contexts -> {what: [B, T - prompt]} of the tokens behind the prompt."""
    metas = (ids.shape[1] - prompt) // model.cfg.meta_context
    targets = ids[:, prompt:]
    exact = model.hidden(ids)["Xhat0"][:, prompt:]
    recursive = forced(model, conditions(model, ids[:, :prompt], metas), targets)
    rows = []
    for x, y, label in zip(*(z.reshape(-1, *z.shape[2:]).split(SLICE) for z in (exact, recursive, targets))):
        p, q = (torch.log_softmax(model.project(z).float(), -1) for z in (x, y))
        nats = (-z.gather(1, label[:, None])[:, 0] for z in (p, q))
        same = (p.argmax(-1) == q.argmax(-1)).float()
        rows.append(torch.stack((*nats, (p.exp() * (p - q)).sum(-1), same)))
    return dict(zip(FIGURES, torch.cat(rows, dim=1).view(-1, *targets.shape).double().cpu()))


def pieces(packed, length, most):
    """Up to `most` pieces [length] of documents' text, those of a document side by side from its first token on."""
    out = []
    for i in range(len(packed.offsets) - 1):
        document = packed.document(i)
        text = document[:-1] if document[-1] == packed.manifest["eos_token_id"] else document
        for at in range(0, len(text) - length + 1, length):
            if len(out) == most:
                return out
            out.append(np.array(text[at : at + length], np.int64))
    return out


def judge(model, texts, prompt, sizes, greedy_metas=0, batch=16):
    """The figures of this program. texts: [length] arrays of ids; sizes: bytes of each token of the vocabulary."""
    check(model.cfg)
    meta, device = model.cfg.meta_context, next(model.parameters()).device
    model.eval()
    columns, same = {key: [] for key in FIGURES}, []
    for first in range(0, len(texts), batch):
        ids = torch.tensor(np.stack(texts[first : first + batch]), device=device)
        for key, value in compare(model, ids, prompt).items():
            columns[key].append(value)
        if greedy_metas:
            given = ids[:, :prompt]
            exact = hiergen_greedy(model, given, greedy_metas * meta)
            same.append((exact == greedy(model, conditions(model, given, greedy_metas))).cpu())
    columns = {key: torch.cat(value) for key, value in columns.items()}
    size = int(sum(sizes[np.stack(texts)[:, prompt:]].ravel()))
    out = {
        "texts": len(texts), "prompt": prompt, "tokens": columns["kl"].numel(), "bytes": size,
        "hiergen_bits_per_byte": columns["hiergen"].sum().item() / math.log(2) / size,
        "recgen_bits_per_byte": columns["recgen"].sum().item() / math.log(2) / size,
        "kl": columns["kl"].mean().item(), "agreement": columns["agreement"].mean().item(),
    }
    if greedy_metas:
        same = torch.cat(same)
        out["greedy_tokens"] = same.shape[1]
        out["greedy_agreement"] = same.double().mean().item()
        out["greedy_same"] = same.long().cumprod(1).sum(1).double().mean().item()
    out["by_meta_context"] = by_meta_context(columns, meta)
    return out


def by_meta_context(columns, meta):
    """Means a token of meta-contexts 1, 2, 3-4, 5-8, ... behind the prompt."""
    out, first, last = [], 0, 1
    while first * meta < columns["kl"].shape[1]:
        means = {key: x[:, first * meta : last * meta].mean().item() for key, x in columns.items()}
        out.append({"from": first + 1, "to": min(last, columns["kl"].shape[1] // meta), **means})
        first, last = last, 2 * last
    return out


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model directory")
    parser.add_argument("--checkpoint", help="a checkpoint of train.py")
    parser.add_argument("--tokenizer", help="default: the model directory's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--prompt", type=int, default=256, help="tokens, rounded down to whole meta-contexts")
    parser.add_argument("--metas", type=int, default=16, help="meta-contexts behind it")
    parser.add_argument("--texts", type=int, default=64, help="at most")
    parser.add_argument("--greedy", type=int, default=4, help="meta-contexts that both continue greedily; 0: none")
    parser.add_argument("--batch", type=int, default=16, help="texts side by side")
    parser.add_argument("data", help="NAME.bin of data.py")
    options = parser.parse_args(arguments)
    if bool(options.model) == bool(options.checkpoint) or options.checkpoint and not options.tokenizer:
        parser.error("give either --model, or --checkpoint and --tokenizer")
    if min(options.metas, options.texts, options.batch) < 1 or min(options.prompt, options.greedy) < 0:
        parser.error("--metas, --texts and --batch must be 1 or more, --prompt and --greedy not negative")
    try:
        model = evaluate.load(options.model or options.checkpoint)
        tokenizer = bpe.load(options.tokenizer or os.path.join(options.model, "tokenizer.json"))
        packed = data.open_packed(options.data, tokenizer)
        check(model.cfg)
        meta = model.cfg.meta_context
        prompt = options.prompt // meta * meta
        length = prompt + options.metas * meta
        texts = pieces(packed, length, options.texts)
        if not texts:
            raise ValueError(f"{options.data}: no document has {length} tokens: shorten --prompt or --metas")
    except (ValueError, OSError) as error:
        sys.exit(f"recgen.py: {error}")
    sizes = np.array([len(tokenizer.tokens.get(id, b"")) for id in range(model.cfg.vocab_size)])
    figures = judge(model.to(options.device), texts, prompt, sizes, options.greedy, options.batch)
    name = os.path.basename(os.path.normpath(options.model or options.checkpoint))
    print(json.dumps({"model": name, "data": os.path.basename(options.data), **evaluate.rounded(figures)}), flush=True)


if __name__ == "__main__":
    main()
