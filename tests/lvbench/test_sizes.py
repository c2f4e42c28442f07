"""The networks have the names and the number of weights that were published."""

from __future__ import annotations

import pytest

from lvbench.networks.loading import built
from lvbench.sizes import Sizes
from lvbench.weights import SOURCES

PUBLISHED = {
    "clarity": 27_125_825,
    "motion": 2_990_543,
    "aesthetic": 303_966_208,
    "aesthetic_head": 769,
    "background": 87_849_216,
    "subject": 85_798_656,
    "flow": 5_257_536,
}
NAMES = {
    "clarity": {
        "block1.gn_proj.bias": (256,),
        "embedding.weight": (384, 16384),
        "transformer_encoder.posembed_input.position_emb": (1, 100, 384),
        "transformer_encoder.scaleembed_input.scale_emb": (3, 384),
        "transformer_encoder.transformer.encoderblock_13.attention.query.weight": (384, 384),
        "transformer_encoder.transformer.encoderblock_0.mlp.fc1.weight": (1152, 384),
    },
    "motion": {
        "feat_encoder.layer3.0.downsample.0.weight": (96, 64, 1, 1),
        "encoder.pyramid4.1.1.weight": (56,),
        "decoder4.convblock.0.0.weight": (112, 113, 3, 3),
        "decoder1.convblock.2.weight": (60, 24, 4, 4),
        "update2.gru.0.weight": (76, 92, 3, 3),
        "comb_block.2.bias": (3,),
    },
    "aesthetic": {
        "transformer.resblocks.23.attn.in_proj_weight": (3072, 1024),
        "positional_embedding": (257, 1024),
        "proj": (1024, 768),
    },
    "aesthetic_head": {"weight": (1, 768), "bias": (1,)},
    "background": {"transformer.resblocks.0.mlp.c_fc.weight": (3072, 768), "conv1.weight": (768, 3, 32, 32)},
    "subject": {"blocks.11.attn.qkv.weight": (2304, 768), "pos_embed": (1, 197, 768), "cls_token": (1, 1, 768)},
    "flow": {
        "fnet.conv2.weight": (256, 128, 1, 1),
        "cnet.layer2.0.downsample.1.running_mean": (96,),
        "cnet.layer2.0.norm3.weight": (96,),
        "update_block.encoder.convc1.weight": (256, 324, 1, 1),
        "update_block.gru.convq2.weight": (128, 384, 5, 1),
        "update_block.mask.2.bias": (576,),
    },
}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_network_of_the_published_size_has_the_published_weights(name):
    network = built(name, Sizes())
    assert sum(parameter.numel() for parameter in network.parameters()) == PUBLISHED[name]
    shapes = {each: tuple(tensor.shape) for each, tensor in network.state_dict().items()}
    assert NAMES[name].items() <= shapes.items()
