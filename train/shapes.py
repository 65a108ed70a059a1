"""The models that sweep.py compares, by name.

    python3 shapes.py            lists names, parameters, costs
    python3 shapes.py NAME       prints its config.json

Vocabulary 4,096, tied heads, heads of 64. They are compared at equal work, not at equal parameters: a decoded token at depth 0 costs
what it costs the flat model, 14M multiply-adds, or up to 7 % more (cost.py). Rows of results name these shapes: a name keeps its meaning.
"""

import json
import sys

import cost
from model import Config, DecoderConfig, LevelConfig, MemoryConfig, StackConfig

LOWER = 128  # units that a bounded level-1 encoder sees


def stack(width, layers, window=0, kv=None, ffn=None, kind=StackConfig, **more):
    heads = width // 64
    ffn = ffn or -(-width * 8 // 3 // 64) * 64
    return kind(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv or heads, head_dim=64,
                intermediate_size=ffn, sliding_window=window, **more)


def decoder(width, layers, window=0, memories=(), **more):
    return stack(width, layers, window, kind=DecoderConfig, memories=list(memories), **more)


def memory(level, layers, heads=6, kv=1, window=0, theta=1e4, unpack=False, head=64):
    return MemoryConfig(level=level, layers=layers, num_attention_heads=heads, num_key_value_heads=kv, head_dim=head, sliding_window=window,
                        rope_theta=theta, unpack=unpack)


def flat(width=384, layers=7, window=0, **more):
    return Config(vocab_size=4096, eos_token_id=4095, tie_word_embeddings=True, stack=stack(width, layers, window, **more))


def hybrid(width=384, layers=7, window=64):
    """The rival: windows, but one layer in the middle that sees everything."""
    return flat(width, layers, [window if n != layers // 2 else 0 for n in range(layers)])


def photon(levels, embedding=96, **more):
    return Config(vocab_size=4096, eos_token_id=4095, tie_word_embeddings=True, embedding_size=embedding, levels=levels, **more)


def published(upper=0, lower=0, window=(0, 0)):
    """PHOTON as published, chunks of 4 and 4 (window: of the decoders of level 1 and 2; lower: of the level-1 encoder)."""
    return photon([
        LevelConfig(4, 1, "concat", stack(384, 2, lower), decoder(384, 4, window[0])),
        LevelConfig(4, 1, "linear", stack(512, 3, upper), decoder(384, 2, window[1])),
    ])


def block(window=0):
    return photon([LevelConfig(4, 1, "linear", stack(512, 6), decoder(384, 4, window))], embedding=192)


def new(layers=5, window=64, chunk=4, prefix=0, tokens=1, token_window=64, unit=384, units=2, unit_window=LOWER, reads=(1, 3), kv=1,
        theta=1e4, unpack=False, skip=True, memories=None, top=None, width=384, token_ffn=None, token_kv=None):
    """The new form: a token encoder whose states are the decoder's content, conditions added to rows, a memory of every token."""
    if memories is None:
        read = memory(int(unpack), list(reads), heads=width // 64, kv=kv, theta=theta, unpack=unpack)
        memories = [read] if reads else []
    levels = [LevelConfig(chunk, prefix, "linear", stack(unit, units, unit_window), decoder(width, layers, window, memories))]
    if top:
        levels.append(top)
    encoder = stack(width if skip else 192, tokens, token_window, kv=token_kv, ffn=token_ffn)
    return photon(levels, embedding=encoder.hidden_size, token_encoder=encoder, content="states" if skip else "embedding")


SHAPES = {
    "flat": flat,
    "rival": hybrid,
    "windows": lambda: flat(window=64),
    "block": block,
    "published": published,
    "published-bounded": lambda: published(lower=LOWER),
    "stream": lambda: published(lower=LOWER, window=(64, 32)),
    "new": new,
    # What each part of the new form is worth, and what might be better.
    "new-no-memory": lambda: new(reads=()),
    "new-all-read": lambda: new(theta=0.0, reads=[0, 1, 2, 3, 4]),
    "new-kv2": lambda: new(kv=2),
    "new-still": lambda: new(theta=0.0),
    "new-no-skip": lambda: new(theta=0.0, skip=False, tokens=2, token_window=16),
    "new-window16": lambda: new(kv=2, window=16),
    "new-window256": lambda: new(theta=0.0, window=256, token_window=256),
    "new-kv2-window256": lambda: new(kv=2, window=256, token_window=256),
    "new-local": lambda: new(theta=0.0, window=0),
    "new-level1": lambda: new(memories=[memory(1, [1, 3], kv=6)]),
    "new-mixed": lambda: new(memories=[memory(1, [1], kv=3), memory(0, [3])]),
    "new-small": lambda: new(unit=256, units=2),
    "t2": lambda: new(tokens=2, layers=4),
    "t2-kv2": lambda: new(tokens=2, layers=4, kv=2),
    "t2-late": lambda: new(tokens=2, layers=4, reads=[3]),
    "t2-window128": lambda: new(tokens=2, layers=4, window=128, token_window=128),
    "t2-no-units": lambda: new(tokens=2, layers=5, unit=64, units=1, reads=[3]),
    "t3-thin": lambda: new(tokens=3, layers=4, token_ffn=512, reads=[3]),
    "unpack": lambda: new(unpack=True),
    "unpack-late": lambda: new(unpack=True, reads=[3]),
    "unpack-deep": lambda: new(unpack=True, layers=4, unit=512, units=4, reads=[3]),
    "unpack-t2": lambda: new(unpack=True, tokens=2, layers=4, reads=[3]),
    "unpack-t2-window128": lambda: new(unpack=True, tokens=2, layers=4, reads=[3], window=128, token_window=128),
    "thin2": lambda: new(unpack=True, tokens=2, token_ffn=256, reads=[3]),
    "thin3": lambda: new(unpack=True, tokens=3, token_ffn=256, token_kv=2, reads=[3]),
    "thin2-last": lambda: new(unpack=True, tokens=2, token_ffn=256, reads=[4]),
    "thin2-window32": lambda: new(unpack=True, tokens=2, token_ffn=256, reads=[3], window=32, token_window=32),
    "thin2-chunk8": lambda: new(unpack=True, tokens=2, token_ffn=256, reads=[3], chunk=8, units=4),
    "thin2-window16": lambda: new(unpack=True, tokens=2, token_ffn=256, reads=[3], window=16, token_window=16),
    # Memories of twice the elements: two key/value heads, two memories of one, or one of twice the width.
    "thin2-kv2": lambda: new(unpack=True, tokens=2, token_ffn=256, reads=[3], kv=2, window=32, token_window=32),
    "thin2-two": lambda: new(unpack=True, tokens=2, token_ffn=256, window=32, token_window=32,
                             memories=[memory(1, [n], unpack=True) for n in (3, 4)]),
    "thin2-wide": lambda: new(unpack=True, tokens=2, token_ffn=256, window=32, token_window=32,
                              memories=[memory(1, [3], unpack=True, head=128)]),
    "slim2-window32": lambda: new(unpack=True, tokens=2, token_ffn=128, reads=[3], window=32, token_window=32),
    # As thin2-window32, with units of width 256: what 16 MiB of int8 weights hold.
    "thin2-small": lambda: new(unpack=True, tokens=2, token_ffn=384, reads=[3], window=32, token_window=32, unit=256),
    "thin2-wide-small": lambda: new(unpack=True, tokens=2, token_ffn=256, window=32, token_window=32, unit=256,
                                    memories=[memory(1, [3], unpack=True, head=128)]),
    # Between the two: a prefilled token costs less than a quarter of flat's, a decoded one as much.
    "thin2-wide-320": lambda: new(unpack=True, tokens=2, token_ffn=224, window=32, token_window=32, unit=320,
                                  memories=[memory(1, [3], unpack=True, head=128)]),
    # Its control: the same memory of the tokens themselves, no hierarchy to speak of, what that saves spent at tokens.
    "wide-no-units": lambda: new(tokens=2, token_ffn=800, window=32, token_window=32, unit=64, units=1,
                                 memories=[memory(0, [3], head=128)]),
    # For texts of 16k tokens and more: the memory of thin2-small bounded, and above that a second level, whose memory
    # reaches back to the beginning with a row for every unit of the first.
    "thin2-small-near": lambda: new(unpack=True, tokens=2, token_ffn=384, window=32, token_window=32, unit=256,
                                    memories=[memory(1, [3], unpack=True, window=4096)]),
    "thin2-small-level2": lambda: new(unpack=True, tokens=2, token_ffn=384, window=32, token_window=32, unit=256,
                                      memories=[memory(1, [3], unpack=True, window=4096), memory(2, [3], unpack=True)],
                                      top=LevelConfig(4, 0, "linear", stack(256, 2, LOWER), decoder(256, 1, 32))),
    # The same at 60M parameters.
    "flat-60m": lambda: flat(640, 12),
    "rival-60m": lambda: hybrid(640, 12),
    "thin2-wide-60m": lambda: new(unpack=True, width=640, tokens=2, token_ffn=512, unit=640, units=4, layers=10,
                                  window=32, token_window=32,
                                  memories=[memory(1, [7], heads=10, unpack=True, head=128)]),
    "thin2-60m": lambda: new(unpack=True, width=640, tokens=2, token_ffn=512, unit=640, units=4, layers=10, reads=[7], window=32, token_window=32),
}


def config(name):
    """The configuration of a name, or of a file NAME.json."""
    if name.endswith(".json"):
        return Config.from_file(name)
    if name not in SHAPES:
        raise ValueError(f"no shape is called {name!r}: give a config.json, or one of {', '.join(SHAPES)}")
    return Config.from_dict(SHAPES[name]().to_dict())  # checked


def main():
    if len(sys.argv) > 1:
        print(json.dumps(config(sys.argv[1]).to_dict(), indent=2))
        return
    print(f"{'':20} {'parameters':>11} {'decode':>11} {'prefill':>11} {'growth':>7}")
    for name in SHAPES:
        c = cost.count(config(name))
        print(f"{name:20} {c['parameters']:11,} {c['decode']:11,} {c['prefill']:11,} {c['growth']:7g}")


if __name__ == "__main__":
    main()
