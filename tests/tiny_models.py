"""Small models with random weights, which compile in seconds. Recipes name them as module:function."""

from __future__ import annotations

import torch


def bert() -> torch.nn.Module:
    """A BERT of one layer with the vocabulary of the tokenizer that the tests use."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    return BertModel(config, add_pooling_layer=False).eval()
