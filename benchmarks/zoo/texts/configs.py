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

# What some types need besides; None leaves one out.
OWN_LENGTHS = {"head_dim": 8}
KEYS_LIKE_QUERIES = {"num_key_value_heads": 4}
BOTH_LAYERS = {"layer_types": ["linear_attention", "full_attention"]}
MAMBAS = {"layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "num_hidden_layers": 4}
HALF_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8}
MORE: Dict[str, Dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "axk1": KEYS_LIKE_QUERIES,
    "axk2": KEYS_LIKE_QUERIES,
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
        }
    },
    "deepseek_v2": {**KEYS_LIKE_QUERIES, "num_experts_per_tok": 2},
    "deepseek_v3": KEYS_LIKE_QUERIES,
    "esm": {"pad_token_id": 1, "vocab_size": VOCABULARY},
    "esmc": KEYS_LIKE_QUERIES,
    "falcon": {"head_dim": None},
    "funnel": {"num_hidden_layers": None, "block_sizes": [1, 1]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "hunyuan_v1_dense": OWN_LENGTHS,
    "hunyuan_v1_moe": OWN_LENGTHS,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 8},
    "lilt": {"hidden_size": 48},
    "luke": {"entity_vocab_size": 16, "entity_emb_size": 16},
    "minicpm3": KEYS_LIKE_QUERIES,
    "ministral": OWN_LENGTHS,
    "mistral4": {**KEYS_LIKE_QUERIES, "head_dim": None},
    "nemotron": {"num_key_value_heads": 2},
    "perceiver": {
        **dict.fromkeys(("num_self_attention_heads", "num_cross_attention_heads"), 4),
        "num_latents": 8,
        "d_latents": 32,
        "num_blocks": 1,
        "num_self_attends_per_block": 2,
    },
    "qwen3_5_text": BOTH_LAYERS,
    "qwen3_next": BOTH_LAYERS,
    "reformer": {
        "axial_pos_shape": [8, 10],
        "axial_pos_embds_dim": [16, 16],
        "attn_layers": ["local", "local"],  # "lsh" draws at random, so that no two answers are the same
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "num_buckets": 2,
        "num_hidden_layers": None,
    },
    "roc_bert": {"pronunciation_vocab_size": 16, "shape_vocab_size": 16},
    "t5": {"decoder_start_token_id": 0},
    "bamba": {**HALF_MAMBA, "attn_layer_indices": [1]},
    "granitemoehybrid": {**HALF_MAMBA, "layer_types": ["mamba", "attention"]},
    "deepseek_v32": KEYS_LIKE_QUERIES,
    "glm4_moe_lite": KEYS_LIKE_QUERIES,
    "glm_moe_dsa": KEYS_LIKE_QUERIES,
    "longcat_flash": KEYS_LIKE_QUERIES,
    "youtu": KEYS_LIKE_QUERIES,
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 8,
    },
    "kimi_linear": {**KEYS_LIKE_QUERIES, **BOTH_LAYERS, "head_dim": None},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8},
    "zaya": {"num_experts_per_tok": 1},
    "gemma4_text": {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8},
    "xlstm": {"v_head_dim": None},
    "prophetnet": {"num_hidden_layers": None},
    "xlnet": {"max_position_embeddings": None},
    "xmod": {"default_language": "en_XX"},
    "zamba": MAMBAS,
    "zamba2": MAMBAS,
}
# The same for a config inside of it.
INSIDE: Dict[str, Dict[str, Dict[str, Any]]] = {"qwen3_5": {"text_config": BOTH_LAYERS}}
# Why the plain model itself does not run here, where its own words do not say.
_DECODES = "it decodes: without a second text, its decoder's, transformers' own model does not run"
UNTRIED = {
    **dict.fromkeys(
        (
            *("blenderbot", "blenderbot-small", "longt5", "m2m_100", "marian", "nllb-moe", "pegasus"),
            *("pegasus_x", "prophetnet", "switch_transformers"),
        ),
        _DECODES,
    ),
    "dpr": "its answer is one vector for a text, which nothing is left of to pool",
    "layoutlmv2": "transformers' own model needs the library detectron2, which is not installed",
    "mra": "without its CUDA kernel, transformers' own model attends to nothing and answers every text alike",
}
# The recipe's keys that a type needs besides, and what the page says of them.
RECIPE: Dict[str, Dict[str, Any]] = {
    "canine": {"buckets": "every length from 4 to 12"},
    **{
        kind: {"buckets": "every length to 12"}
        for kind in ("convbert", "cpmant", "fnet", "nystromformer", "t5gemma", "yoso")
    },
    **{kind: {"buckets": "every length to 12", "batch_sizes": [1]} for kind in ("reformer", "t5gemma2")},
    "longformer": {"batch_sizes": [3]},
    "led": {"batch_sizes": [3]},
    "funnel": {"buckets": "every length from 3 to 12"},
}

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


# Types without a classifier that read texts alone; other bare models take pictures or sounds.
BARE = _types(
    "afmoe apertus bamba bert-generation bitnet blenderbot blenderbot-small codegen cohere cohere2",
    "cohere2_moe cpmant cwm dbrx deepseek_v32 deepseek_v4 dots1 dpr ernie4_5 ernie4_5_moe exaone_moe",
    "falcon_h1 falcon_mamba flex_olmo fsmt gemma3n_text gemma4_text glm4_moe glm4_moe_lite glm_moe_dsa",
    "gpt_neox_japanese granite granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared",
    "hyperclovax internlm3 jais2 kimi_linear led lfm2 lfm2_moe llama4_text longcat_flash longt5 m2m_100",
    "mamba mamba2 marian minimax_m2 nanochat nemotron_h nllb-moe olmo_hybrid olmoe pegasus pegasus_x",
    "prophetnet recurrent_gemma rwkv solar_open splinter switch_transformers vaultgemma xglm xlstm",
    "youtu zaya",
)


def bare() -> List[str]:
    """Those of them that the installed transformers has."""
    from transformers.models.auto import modeling_auto

    return [kind for kind in modeling_auto.MODEL_MAPPING_NAMES if kind in BARE]


def config_of(kind: str) -> Any:
    """A small config of a type. Special tokens whose ids would be too large get small ones."""
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[kind]
    small = _small(config())
    labels = {i: f"class {i}" for i in range(LABELS)}
    named = {"id2label": labels, "label2id": {label: i for i, label in labels.items()}}
    chosen = {**small, **MORE.get(kind, {}), **named}
    for key, more in INSIDE.get(kind, {}).items():
        chosen[key] = {**small[key], **more}
    return config(**{key: value for key, value in chosen.items() if value is not None})


def _usual(usual: Any, key: str) -> Any:
    try:
        return getattr(usual, key, None)
    except Exception:  # what each layer has its own of, and cannot be asked of all
        return None


def _small(usual: Any) -> Dict[str, Any]:
    from transformers import PretrainedConfig

    small = {key: value for key, value in SMALL.items() if _usual(usual, key) is not None}
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
