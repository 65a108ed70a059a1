"""What a model costs, counted from its configuration: multiply-adds and cache elements a token.

    python3 cost.py CONFIG.json...

A decoded token runs every stack at its rate. A prefilled token runs what the rest of the text will read: encoders, token encoder,
the keys and values of memories. Of a decoder, or a flat model, only the last rows are read by what follows: its last unbounded layer
needs the keys and values of every row, the layers below that everything, those above a fixed number of rows at the end of the prompt.
So a decoder of windows costs a prefilled token nothing; those above one with an unbounded layer run whole, for their outputs are its conditions.

Attention is counted over the rows that `depth` tokens have left (chunk-local decoders: over half a unit). Norms, rotations, softmax,
biases and the look-up of embeddings are not counted.
"""

import json
import sys

import tensors
from model import Config


def layer_work(s, seen):
    """Multiply-adds of one row in one layer that attends to `seen` rows."""
    queries, keys = s.num_attention_heads * s.head_dim, s.num_key_value_heads * s.head_dim
    return s.hidden_size * (2 * queries + 2 * keys + 3 * s.intermediate_size) + 2 * queries * seen


def stack_cost(s, rows, depth):
    """(multiply-adds, elements that grow) a token, of a stack with `rows` rows a token behind a text of `depth` tokens."""
    work = grow = 0.0
    for window in s.windows:
        work += rows * layer_work(s, min(window or float("inf"), depth * rows))
        grow += 0 if window else rows * 2 * s.num_key_value_heads * s.head_dim
    return work, grow


def last_rows_cost(s, rows, depth):
    """Multiply-adds a token of a prompt of which only the last rows' outputs are read."""
    last = max((n for n, window in enumerate(s.windows) if not window), default=-1)
    if last < 0:
        return 0.0
    below = sum(layer_work(s, min(window or float("inf"), depth * rows)) for window in s.windows[:last])
    return rows * (below + s.hidden_size * 2 * s.num_key_value_heads * s.head_dim)


def decoder_cost(level, units, depth):
    """stack_cost of a level's decoder, the converter left out; `units` of the level begin with a token."""
    if level.stream:
        return stack_cost(level.decoder, units * level.rows, depth)
    rows = level.rows - (level.prefix_length > 0)  # the last child's row predicts nothing
    return level.decoder.num_hidden_layers * units * rows * layer_work(level.decoder, (rows + 1) / 2), 0


def count(cfg, depth=0):
    """A dict: parameters; multiply-adds of a decoded and of a prefilled token behind `depth` tokens; cache elements a token."""
    out = {"parameters": tensors.count(cfg)}
    if cfg.flat:
        work, grow = stack_cost(cfg.stack, 1, depth)
        return dict(out, decode=round(work + cfg.vocab_size * cfg.stack.hidden_size), prefill=round(last_rows_cost(cfg.stack, 1, depth)), growth=grow)
    spans, widths = [1], [cfg.embedding_size]  # tokens in a unit of each level, and the width of its state
    for level in cfg.levels:
        spans.append(spans[-1] * level.chunk_size)
        widths.append(level.encoder.hidden_size)
    up, grow = stack_cost(cfg.token_encoder, 1, depth) if cfg.token_encoder else (0.0, 0.0)
    down, whole = 0.0, 0.0  # of all decoders; of what a prompt runs of them
    for l, level in enumerate(cfg.levels, 1):
        units, d = 1 / spans[l], level.decoder
        work, more = stack_cost(level.encoder, units, depth)
        up, grow = up + work, grow + more
        if level.chunker == "linear":
            up += units * level.chunk_size * widths[l - 1] * widths[l]
        work, more = decoder_cost(level, units, depth)
        decode = work + units * (level.prefix_length or level.chunk_size) * d.hidden_size * widths[l]
        grow += more
        rows = units * (level.rows - (not level.stream and level.prefix_length > 0))
        for m in d.memories:
            made, read = memory_cost(m, len(m.layers) * rows, d.hidden_size, spans, widths, depth)
            up, decode = up + made, decode + read
            grow += 0 if m.sliding_window else 2 * m.num_key_value_heads * m.head_dim / spans[m.level - m.unpack]
        down += decode
        if whole:
            whole += decode
        elif more:
            whole = decode - work + last_rows_cost(d, units * level.rows, depth)
    head = cfg.vocab_size * cfg.levels[0].decoder.hidden_size
    return dict(out, decode=round(up + down + head), prefill=round(up + whole), growth=grow)


def memory_cost(m, rows, decoder_width, spans, widths, depth):
    """Multiply-adds a token: of making the memory's rows, and of reading them in `rows` rows of the decoder a token."""
    rate, width = 1 / spans[m.level - m.unpack], widths[m.level - m.unpack]  # of M's rows
    made = rate * width * (2 * m.num_key_value_heads * m.head_dim + m.unpack * widths[m.level])
    seen = min(m.sliding_window or float("inf"), 1 + depth * rate)
    return made, rows * m.num_attention_heads * m.head_dim * (2 * decoder_width + 2 * seen)


def main():
    for path in sys.argv[1:]:
        cfg = Config.from_file(path)
        print(json.dumps({"config": path, **{f"at {d}": count(cfg, d) for d in (0, 4096, 32768)}}))


if __name__ == "__main__":
    main()
