"""What a model costs, counted from its configuration: multiply-adds and cache elements a token.

    python3 cost.py CONFIG.json...

A decoded token runs every stack at its rate. A prefilled token runs what the rest of the text will read: encoders, token encoder,
the keys and values of memories. Decoders that see only windows run a fixed number of rows at the end of a prompt, so a prefilled
token costs them nothing; a decoder with an unbounded layer runs whole. Norms, rotations and softmax are not counted.
"""

import json
import sys

import tensors
from model import Config


def layer_weights(s):
    """Multiply-adds of one row in one layer, attention's products with keys and values left out."""
    heads, kv = s.num_attention_heads * s.head_dim, s.num_key_value_heads * s.head_dim
    return s.hidden_size * (2 * heads + 2 * kv) + 3 * s.hidden_size * s.intermediate_size


def stack_cost(s, rows, depth, run=True):
    """(multiply-adds, elements that grow) a token, of a stack with `rows` rows a token behind a text of `depth` tokens."""
    work, grow = 0.0, 0.0
    for window in s.windows:
        seen = min(window, depth * rows) if window else depth * rows
        work += rows * (layer_weights(s) + 2 * s.num_attention_heads * s.head_dim * seen)
        grow += 0 if window else rows * 2 * s.num_key_value_heads * s.head_dim
    return work * run, grow


def count(cfg, depth=0):
    """A dict: parameters; multiply-adds of a decoded and of a prefilled token behind `depth` tokens; cache elements a token."""
    out = {"parameters": tensors.count(cfg)}
    if cfg.flat:
        work, grow = stack_cost(cfg.stack, 1, depth)
        head = cfg.vocab_size * cfg.stack.hidden_size
        return dict(out, decode=round(work + head), prefill=round(work), growth=grow)
    encode = decode = grow = 0.0
    if cfg.token_encoder:
        work, more = stack_cost(cfg.token_encoder, 1, depth)
        encode, grow = encode + work, grow + more
    below, width, spans, widths = 1.0, cfg.embedding_size, [1], [cfg.embedding_size]
    for level in cfg.levels:
        spans.append(spans[-1] * level.chunk_size)
        widths.append(level.encoder.hidden_size)
    prefill_decoders = 0.0
    for l, level in enumerate(cfg.levels):
        units, children = 1 / spans[l + 1], 1 / spans[l]
        work, more = stack_cost(level.encoder, units, depth)
        if level.chunker == "linear":
            work += units * level.chunk_size * widths[l] * widths[l + 1]
        encode, grow = encode + work, grow + more
        d = level.decoder
        local = not level.stream
        rows = units * (level.rows - (local and level.prefix_length > 0))
        if local:
            seen = (level.rows + 1) / 2  # on average
            work, more = d.num_hidden_layers * rows * (layer_weights(d) + 2 * d.num_attention_heads * d.head_dim * seen), 0
        else:
            work, more = stack_cost(d, rows, depth)
        work += units * (level.prefix_length or level.chunk_size) * d.hidden_size * widths[l + 1]
        for m in d.memories:
            kv = 2 * m.num_key_value_heads * m.head_dim
            rate = 1 / spans[m.level - m.unpack]  # rows of M a token
            encode += rate * widths[m.level - m.unpack] * (kv + m.unpack * widths[m.level])
            grow += 0 if m.sliding_window else kv * rate
            seen = 1 + depth * rate
            seen = min(seen, m.sliding_window) if m.sliding_window else seen
            work += len(m.layers) * rows * m.num_attention_heads * m.head_dim * (2 * d.hidden_size + 2 * seen)
        decode, grow = decode + work, grow + more
        prefill_decoders += work if more else 0
    head = cfg.vocab_size * cfg.levels[0].decoder.hidden_size
    return dict(out, decode=round(encode + decode + head), prefill=round(encode + prefill_decoders), growth=grow)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        cfg = Config.from_file(path)
        print(json.dumps({"config": path, **{f"at {d}": count(cfg, d) for d in (0, 4096, 32768)}}))
