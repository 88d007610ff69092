"""How HDMNet's parameters are called here and in the authors' checkpoints."""

from ..nn.matching import STAGES

_THEIRS = "transformer.mix_transformer."


def _layer(ours: str, theirs: str) -> dict[str, str]:
    names = {f"{ours}attention.{name}.": f"{theirs}attn.attn.linear_{name[0]}." for name in ("query", "key", "value")}
    names |= {f"{ours}attention.out.": f"{theirs}attn.attn.linear_o."}
    names |= {f"{ours}attention.reduce.": f"{theirs}attn.sr.", f"{ours}attention.norm.": f"{theirs}attn.norm."}
    return names | {f"{ours}ffn.": f"{theirs}ffn.layers.", ours: theirs}


def _stage(i: int) -> dict[str, str]:
    ours, theirs = f"transformer.stages.{i}.", f"{_THEIRS}down_sample_layers.{i}."
    names = {f"{ours}embed.": f"{theirs}0.projection.", f"{ours}embed_norm.": f"{theirs}0.norm."}
    names |= {f"{ours}norm.": f"{theirs}3."}
    for layer in range(2):
        names |= _layer(f"{ours}layers.{layer}.", f"{theirs}{1 + layer}.")
    match = f"{_THEIRS}match_layers.{i}."
    names |= _layer(f"transformer.match.{i}.", f"{match}0.")
    names |= {f"transformer.guide.{i}.0.": f"{match}1.conv.", f"transformer.guide.{i}.1.": f"{match}1.bn."}
    return names | {f"transformer.parse.{i}.": f"{_THEIRS}parse_layers.{i}."}


OFFICIAL = {name: theirs for i in range(len(STAGES)) for name, theirs in _stage(i).items()}
OFFICIAL |= {
    "transformer.classifier.": f"{_THEIRS}cls.",
    "ensemble.scene.": "gram_merge.",
    "ensemble.background.": "cls_merge.",
    "ensemble.reweight.": "kshot_rw.",
    "base_head.pooling.stages.": "ppm.features.",
    "base_head.level5.": "cls.",
    "base_head.classifier.": "base_learnear.",
    "backbone.": "",
}
