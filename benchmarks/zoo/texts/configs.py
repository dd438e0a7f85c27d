"""A small config of every type of text model that transformers knows."""

from __future__ import annotations

from typing import Any, Dict, List, Set


def _types(*lines: str) -> Set[str]:
    return {kind for line in lines for kind in line.split()}


VOCABULARY = 96
LABELS = 3
POSITIONS = 80  # more than the largest bucket, and than what some types keep for themselves

# What is made small, wherever a config has it. Windows are short enough for texts to be longer.
SMALL: Dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "attention_head_size", "kv_channels"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff"), 64),
    **dict.fromkeys(("d_inner", "dff", "hidden_dim", "ffn_hidden_size", "feed_forward_size"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("n_routed_experts", "num_experts", "num_local_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), POSITIONS),
    **dict.fromkeys(("sliding_window", "window_size", "attention_window", "local_attention"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("mamba_d_state", "mamba_dt_rank"), 8),
    "vocab_size": VOCABULARY,
    "embedding_size": 32,
}

# What some types need besides.
MORE: Dict[str, Dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
}
# The recipe's keys that a type needs besides, and what the page says of them.
RECIPE: Dict[str, Dict[str, Any]] = {}

ENCODERS = _types(
    "albert bert big_bird camembert canine convbert data2vec-text deberta deberta-v2 distilbert electra",
    "ernie esm esmc eurobert flaubert fnet funnel gte ibert jina_embeddings_v3 layoutlm layoutlmv2",
    "layoutlmv3 lilt longformer luke markuplm megatron-bert mobilebert modernbert modernvbert mpnet",
    "mra nomic_bert nystromformer perceiver reformer rembert roberta roberta-prelayernorm roc_bert roformer",
    "squeezebert tapas ultrabert ultravbert xlm xlm-roberta xlm-roberta-xl xmod yoso",
)
# Two kinds of tokens, for the two texts of a pair.
PAIRED = _types(
    "albert bert big_bird canine convbert deberta deberta-v2 electra ernie fnet funnel layoutlm layoutlmv2",
    "megatron-bert mobilebert nomic_bert rembert roc_bert roformer squeezebert xlnet",
)


def classifiers() -> List[str]:
    """The types of transformers' mapping for the classification of texts."""
    from transformers.models.auto import modeling_auto

    return list(modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)


def config_of(kind: str) -> Any:
    """A small config of a type. Special tokens whose ids would be too large get small ones."""
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[kind]
    small = _small(config())
    labels = {i: f"class {i}" for i in range(LABELS)}
    return config(
        **{**small, **MORE.get(kind, {}), "id2label": labels, "label2id": {v: k for k, v in labels.items()}}
    )


def _small(usual: Any) -> Dict[str, Any]:
    from transformers import PretrainedConfig

    small = {key: value for key, value in SMALL.items() if getattr(usual, key, None) is not None}
    if isinstance(getattr(usual, "attention_window", None), list):
        small["attention_window"] = [8, 8]
    for place, key in enumerate(
        ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    ):
        token = getattr(usual, key, None)
        if isinstance(token, list) or (isinstance(token, int) and token >= VOCABULARY // 2):
            small[key] = place
    for key, value in vars(usual).items():
        if isinstance(value, PretrainedConfig):
            small[key] = _small(value)
    return small
