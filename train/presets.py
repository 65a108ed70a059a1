"""Models by name: the paper's nine, flat models for speed comparisons, and our own.

    python3 presets.py            lists names and parameter counts
    python3 presets.py NAME       prints its config.json
"""

import json
import sys

import shapes
import tensors
from model import Config, LevelConfig, StackConfig


def _stack(hidden, ffn, heads, layers, **more):
    return StackConfig(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
                       head_dim=hidden // heads, intermediate_size=ffn, **more)


def _flat(vocab, hidden, layers, heads, ffn, **tokens):
    return Config(vocab_size=vocab, stack=_stack(hidden, ffn, heads, layers), **tokens)


# The paper's sizes: hidden, ffn, heads, layers of one PHOTON stack. All use the Llama tokenizer of 32,000.
PAPER = {"600m": (1664, 4096, 32, 4), "900m": (1792, 4608, 32, 5), "1.2b": (1920, 5120, 32, 6)}
LLAMA = {"vocab_size": 32000, "bos_token_id": 1, "eos_token_id": 2}


def _photon(hidden, ffn, heads, layers):
    """Two levels of four; every stack alike, decoders chunk-local."""
    def level(chunker):
        return LevelConfig(chunk_size=4, prefix_length=2, chunker=chunker,
                           encoder=_stack(hidden, ffn, heads, layers), decoder=_stack(hidden, ffn, heads, layers))
    return Config(embedding_size=hidden // 4, levels=[level("concat"), level("linear")], **LLAMA)


def _block(hidden, ffn, heads, layers):
    """The Block Transformer: one level of four, with all the layers of PHOTON's four stacks in two."""
    level = LevelConfig(chunk_size=4, prefix_length=2, chunker="concat",
                        encoder=_stack(hidden, ffn, heads, 2 * layers), decoder=_stack(hidden, ffn, heads, 2 * layers))
    return Config(embedding_size=hidden // 4, levels=[level], **LLAMA)


def _vanilla(hidden, ffn, heads, layers):
    return Config(stack=_stack(hidden, ffn, heads, 4 * layers), **LLAMA)


PRESETS = {f"{kind}-{size}": make(*sizes)
           for kind, make in (("photon", _photon), ("block", _block), ("vanilla", _vanilla))
           for size, sizes in PAPER.items()}
# Our own: the embedded model, whose stream decoders and windowed lower encoder leave only the top encoder's cache to grow, and
# a flat model of its size. Most of its layers are at the tokens.
def _photon_15m():
    def stack(hidden, ffn, layers, window):
        return StackConfig(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64, num_key_value_heads=2,
                           head_dim=64, intermediate_size=ffn, sliding_window=window)
    return Config(vocab_size=4096, embedding_size=96, tie_word_embeddings=True, eos_token_id=4095, levels=[
        LevelConfig(chunk_size=4, prefix_length=1, chunker="concat",
                    encoder=stack(384, 384, 1, 128), decoder=stack(384, 832, 8, 1024)),
        LevelConfig(chunk_size=4, prefix_length=1, chunker="linear",
                    encoder=stack(256, 512, 1, 0), decoder=stack(384, 256, 1, 128)),
    ])


PRESETS["photon-15m"] = _photon_15m()
PRESETS["flat-15m"] = _flat(4096, 384, 7, 6, 1024, eos_token_id=4095)
PRESETS["rival-15m"] = shapes.config("rival")
PRESETS["memory-15m"] = shapes.config("thin2-window32")
PRESETS["memory-wide-15m"] = shapes.config("thin2-wide")
PRESETS["flat-20m"] = _flat(8192, 384, 8, 6, 1024)
PRESETS["flat-134m"] = _flat(32000, 768, 12, 12, 2048)
PRESETS["flat-597m"] = _flat(32000, 1280, 26, 20, 3456)


def config(name):
    if name not in PRESETS:
        raise ValueError(f"no preset is called {name!r}: choose one of {', '.join(PRESETS)}")
    return Config.from_dict(PRESETS[name].to_dict())  # a copy, checked


def main():
    if len(sys.argv) > 1:
        print(json.dumps(config(sys.argv[1]).to_dict(), indent=2))
        return
    for name in PRESETS:
        print(f"{name:14} {tensors.count(config(name)):>15,}")


if __name__ == "__main__":
    main()
