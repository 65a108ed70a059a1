"""The tensors of a model, by name and shape, from its configuration alone: nothing is allocated."""

from math import prod


def shapes(cfg):
    """{name: shape} of everything in the model's file, in the order of the arithmetic."""
    out = {}
    vocab = cfg.vocab_size
    if cfg.flat:
        width = cfg.stack.hidden_size
        out["model.embed_tokens.weight"] = (vocab, width)
        out.update(_stack("model.", cfg.stack))
    else:
        out["encoder.embed_tokens.weight"] = (vocab, cfg.embedding_size)
        below = cfg.embedding_size
        for i, level in enumerate(cfg.levels):
            at, above = f"levels.{i}.", level.encoder.hidden_size
            if level.chunker == "linear":
                out[at + "chunker.norm.weight"] = (level.chunk_size * below,)
                out[at + "chunker.proj.weight"] = (above, level.chunk_size * below)
                out[at + "chunker.proj.bias"] = (above,)
            out.update(_stack(at + "encoder.", level.encoder))
            rows = level.prefix_length * level.decoder.hidden_size
            out[at + "converter.weight"] = (rows, above)
            out[at + "converter.bias"] = (rows,)
            out.update(_stack(at + "decoder.", level.decoder))
            below = above
        width = cfg.levels[0].decoder.hidden_size
        out["start_latent"] = (below,)
        out["decoder.embed_tokens.weight"] = (vocab, width)
    if not cfg.tie_word_embeddings:
        out["lm_head.weight"] = (vocab, width)
    return out


def count(cfg):
    return sum(prod(shape) for shape in shapes(cfg).values())


def _stack(at, s):
    out = {}
    queries, keys = s.num_attention_heads * s.head_dim, s.num_key_value_heads * s.head_dim
    for n in range(s.num_hidden_layers):
        layer = f"{at}layers.{n}."
        out[layer + "input_layernorm.weight"] = (s.hidden_size,)
        out[layer + "self_attn.q_proj.weight"] = (queries, s.hidden_size)
        out[layer + "self_attn.k_proj.weight"] = (keys, s.hidden_size)
        out[layer + "self_attn.v_proj.weight"] = (keys, s.hidden_size)
        out[layer + "self_attn.o_proj.weight"] = (s.hidden_size, queries)
        out[layer + "post_attention_layernorm.weight"] = (s.hidden_size,)
        out[layer + "mlp.gate_proj.weight"] = (s.intermediate_size, s.hidden_size)
        out[layer + "mlp.up_proj.weight"] = (s.intermediate_size, s.hidden_size)
        out[layer + "mlp.down_proj.weight"] = (s.hidden_size, s.intermediate_size)
    out[at + "norm.weight"] = (s.hidden_size,)
    return out
