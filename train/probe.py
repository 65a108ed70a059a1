"""What a trained model makes of its text: bits per byte, by position; what it has from far back; what each part is worth.

    python3 probe.py --checkpoint RUN/checkpoint.pt --tokenizer tokenizer.json --books books.bin --documents NAME=FILE.bin... --long long.bin

prints one JSON object. books are cut into pieces of --piece tokens, the first eight of each, and long into pieces of --long-piece, the
first two of each; documents are scored whole, each on its own.

gain N: nats a token lost in the second half of a piece when a token is given only the N … 2N-1 tokens before it, not all.
worth: nats a token of the first 24 pieces lost when a layer adds nothing; when a memory is not read, by any layer or by one; when the
condition of a level, or what an unpacked memory's units say of their children, is replaced by what its mean over eight pieces gives.
Both are differences of means over the same tokens.
"""

import argparse
import contextlib
import json
import math
import time

import numpy as np
import torch
import torch.nn.functional as F

import bpe
import cost
import data
import evaluate

NEAR = (64, 256, 1024, 4096)  # tokens that gains leave
EDGES = (0, 64, 256, 1024, 2048, 4096, 8192, 16384, 32768)  # of ranges of positions
AT_ONCE = 32768  # tokens in a pass, so that the logits fit


class Prober:
    def __init__(self, model, tokenizer, device):
        self.model, self.device = model.to(device).eval(), device
        self.bytes_of = torch.tensor([len(tokenizer.tokens.get(i, b"")) for i in range(tokenizer.vocab_size)], device=device, dtype=torch.float64)

    @torch.no_grad()
    def nats(self, ids):
        """Minus the log-probability [B, T] of each token of ids [B, T] given those before it in its row."""
        rows, cfg = ids, self.model.cfg
        if cfg.flat:
            rows = torch.cat((torch.full_like(ids[:, :1], evaluate.opening(cfg)), ids[:, :-1]), 1)
        out, some = [], max(1, AT_ONCE // ids.shape[1])
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            for part, targets in zip(rows.split(some), ids.split(some)):
                x = self.model.hidden(part)["Xhat0"]
                for hidden, labels in zip(x.reshape(-1, x.shape[-1]).split(AT_ONCE), targets.reshape(-1).split(AT_ONCE)):
                    out.append(F.cross_entropy(self.model.project(hidden).float(), labels, reduction="none"))
        return torch.cat(out).view(ids.shape)

    def bits(self, nats, ids):
        return (nats.double().sum() / self.bytes_of[ids].sum() / math.log(2)).item()

    def documents(self, packed):
        """Bits per byte of whole documents; those of like length run together, padded on the right."""
        texts = [np.asarray(packed.document(i)[:-1], np.int64) for i in range(len(packed.offsets) - 1)]
        texts = sorted((text for text in texts if len(text)), key=len)
        nats = size = 0.0
        while texts:
            some, texts = texts[:16], texts[16:]
            ids = np.zeros((len(some), -(-len(some[-1]) // 256) * 256), np.int64)
            real = np.zeros(ids.shape, bool)
            for i, text in enumerate(some):
                ids[i, : len(text)], real[i, : len(text)] = text, True
            ids, real = torch.from_numpy(ids).to(self.device), torch.from_numpy(real).to(self.device)
            nats += self.nats(ids)[real].double().sum().item()
            size += self.bytes_of[ids][real].sum().item()
        return nats / size / math.log(2)

    def gains(self, pieces, full):
        """{N: nats lost} in the second half of pieces [n, T], whose tokens cost full [n, T]."""
        half, out = pieces.shape[1] // 2, {}
        for n in NEAR:
            if n < half:
                end = half + (pieces.shape[1] - half) // n * n
                cuts = pieces[:, half - n : end].unfold(1, 2 * n, n).reshape(-1, 2 * n)
                out[n] = (self.nats(cuts)[:, n:].mean() - full[:, half:end].mean()).item()
        return out

    def worth(self, pieces):
        """{part: nats lost} where it is taken away."""
        before = self.nats(pieces).mean().item()
        lost = lambda change: self._without(change, pieces) - before
        out, model = {}, self.model
        stacks = {"": model.model} if model.cfg.flat else {}
        if model.cfg.token_encoder:
            stacks["token encoder "] = model.token_encoder
        for l, level in enumerate([] if model.cfg.flat else model.levels, 1):
            stacks.update({f"encoder {l} ": level.encoder, f"decoder {l} ": level.decoder})
            out[f"condition {l}"] = lost([self._mean_input(level.converter, pieces[:8])])
            for e, memory in enumerate(model.cfg.levels[l - 1].decoder.memories):
                if memory.unpack:
                    out[f"decoder {l} memory {e} unpacked"] = lost([self._mean_input(level.decoder.memories[e].unpack, pieces[:8])])
                reads = [level.decoder.layers[n].memory_attn[str(e)] for n in memory.layers]
                out[f"decoder {l} memory {e}"] = lost([replaced(read, lambda x, *_: torch.zeros_like(x)) for read in reads])
                for n, read in zip(memory.layers, reads):
                    out[f"decoder {l} memory {e} in layer {n}"] = lost([replaced(read, lambda x, *_: torch.zeros_like(x))])
        for name, stack in stacks.items():
            for n, layer in enumerate(stack.layers):
                out[f"{name}layer {n}"] = lost([replaced(layer, lambda x: x)])
        return out

    def _without(self, changes, pieces):
        with contextlib.ExitStack() as all_of_them:
            for change in changes:
                all_of_them.enter_context(change)
            return self.nats(pieces).mean().item()

    def _mean_input(self, module, pieces):
        """Gives the module, for each row of its input, the mean of all its rows over pieces."""
        sums, rows = [], []

        def note(_, inputs):
            sums.append(inputs[0].double().sum((0, 1)))
            rows.append(inputs[0].shape[0] * inputs[0].shape[1])

        hook = module.register_forward_pre_hook(note)
        self.nats(pieces)
        hook.remove()
        mean, plain = sum(sums) / sum(rows), module.forward
        return replaced(module, lambda x: plain(mean.to(x.dtype).expand_as(x)))


@contextlib.contextmanager
def replaced(module, forward):
    module.forward = forward  # of this one: its class keeps its own
    try:
        yield
    finally:
        del module.forward


def pieces_of(path, tokenizer, size, each, meta):
    """The first `each` pieces of `size` tokens of every document of a packed file [n, size]."""
    if size % meta:
        raise ValueError(f"pieces of {size} tokens do not end with a meta-context of {meta}: choose a multiple")
    packed, out = data.open_packed(path, tokenizer), []
    for i in range(len(packed.offsets) - 1):
        ids = np.asarray(packed.document(i)[:-1], np.int64)
        out += [ids[k * size : (k + 1) * size] for k in range(min(len(ids) // size, each))]
    if not out:
        raise ValueError(f"{path}: no document has {size} tokens: choose shorter pieces")
    return torch.from_numpy(np.stack(out))


def by_position(nats):
    edges = [e for e in EDGES if e < nats.shape[1]] + [nats.shape[1]]
    return {f"{a}-{b}": round(nats[:, a:b].mean().item(), 4) for a, b in zip(edges, edges[1:])}


def rounded(numbers, digits=4):
    return {k: round(v, digits) for k, v in numbers.items()}


def probe(model, tokenizer, device, books, documents, long=None, piece=4096, long_piece=16384, worth=True):
    p, meta, out = Prober(model, tokenizer, device), model.cfg.meta_context, {}
    pieces = pieces_of(books, tokenizer, piece, 8, meta).to(device)
    full = p.nats(pieces)
    out["books bits/byte"] = round(p.bits(full, pieces), 4)
    out["books by position"] = by_position(full)
    out["gain"] = rounded(p.gains(pieces, full))
    for name, path in documents.items():
        out[f"{name} bits/byte"] = round(p.documents(data.open_packed(path, tokenizer)), 4)
    if long:
        texts = pieces_of(long, tokenizer, long_piece, 2, meta).to(device)
        full = p.nats(texts)
        out["long bits/byte"] = round(p.bits(full, texts), 4)
        out["long by position"] = by_position(full)
        out["long gain"] = rounded(p.gains(texts, full))
    if worth:
        out["worth"] = rounded(p.worth(pieces[:24]))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model directory")
    parser.add_argument("--checkpoint", help="a checkpoint of train.py")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--books", required=True, metavar="FILE.bin")
    parser.add_argument("--documents", nargs="*", default=[], metavar="NAME=FILE.bin")
    parser.add_argument("--long", metavar="FILE.bin")
    parser.add_argument("--piece", type=int, default=4096, help="tokens in a piece of a book")
    parser.add_argument("--long-piece", type=int, default=16384)
    parser.add_argument("--no-worth", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if bool(options.model) == bool(options.checkpoint):
        parser.error("give either --model or --checkpoint")
    began = time.time()
    model = evaluate.load(options.model or options.checkpoint)
    if options.device == "cuda":
        import fast

        torch.backends.cuda.matmul.allow_tf32 = True
        model.to("cuda")
        for size in {options.piece, options.long_piece, *(2 * n for n in NEAR)}:
            fast.install(model, size)
    tokenizer = bpe.load(options.tokenizer)
    documents = dict(spec.split("=", 1) for spec in options.documents)
    out = probe(model, tokenizer, options.device, options.books, documents, options.long, options.piece, options.long_piece,
                not options.no_worth)
    print(json.dumps(dict(cost.count(model.cfg), **out, seconds=round(time.time() - began))), flush=True)


if __name__ == "__main__":
    main()
