"""Write `panet.safetensors` from the library as it is. Only run this while the authors' golden files pass."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from golden_tools import ROOT_GOLDEN, recipe_weights

from fsslib import Episode, build_model, load_official

generator = torch.Generator().manual_seed(7)
low = torch.randn(5, 3, 6, 7, generator=generator)
images = torch.nn.functional.interpolate(low, (41, 49), mode="bilinear").half()
masks = (images[:, 0] > 0.2).long()
masks[:, :, :4] = 255
query_mask = masks[0] * (1 + (torch.arange(49) > 24))
query_mask[:, :4] = 255
support = {"support_images": images[1:].view(1, 2, 2, 3, 41, 49), "support_masks": masks[1:].view(1, 2, 2, 41, 49)}
parts = {"query_images": images[:1], "query_masks": query_mask[None], **support}
model = build_model("panet", backbone="vgg16")
table = [(model.official_name(n), v.shape, "float32") for n, v in model.state_dict().items()]
load_official(model, recipe_weights(table))
floats = {k: v.float() if "images" in k else v for k, v in parts.items()}
episode = Episode(**floats, classes=torch.tensor([[3, 8]])).validate()
losses = model.train().losses(episode)
losses["total"].backward()
out = {k: v if "images" in k else v.to(torch.uint8) for k, v in parts.items()}
out["losses"] = torch.stack([losses[k].detach() for k in ("query", "align", "total")])
out["gradnorms"] = torch.stack([p.grad.norm() for p in model.parameters()])
with torch.no_grad():
    out["logits"] = model.eval()(episode).logits
save_file({k: v.contiguous() for k, v in out.items()}, ROOT_GOLDEN / "panet.safetensors")
