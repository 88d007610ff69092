"""Write `sdaanet.safetensors` from the library as it is. Only run this while the authors' golden files pass."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from golden_tools import ROOT_GOLDEN
from sdaanet_tools import reduced_episode, reduced_evaluation, reduced_model, reduced_training

# 42 x 45: not of the 8k + 1 pixels where resized masks stay hard.
HEIGHT, WIDTH = 42, 45
generator = torch.Generator().manual_seed(7)
low = torch.randn(10, 3, 6, 7, generator=generator)
images = torch.nn.functional.interpolate(low, (HEIGHT, WIDTH), mode="bilinear", align_corners=True)
images = (32 * images).round().clamp(-128, 127).to(torch.int8)
masks = (images[:, 0] > 6).to(torch.uint8)
masks[:, :, :4] = 255
query_masks = masks[:2] * (1 + (torch.arange(WIDTH) > 24)).to(torch.uint8)
query_masks[:, :, :4] = 255
support_masks = masks[2:].view(2, 2, 2, HEIGHT, WIDTH)
support_masks[1, 1, 0] = 0
episode = {
    "query_images": images[:2],
    "query_masks": query_masks,
    "support_images": images[2:].view(2, 2, 2, 3, HEIGHT, WIDTH),
    "support_masks": support_masks,
    "classes": torch.tensor([[3, 8], [5, 1]]),
}
model, task = reduced_model(), reduced_episode(episode)
stored = episode | reduced_evaluation(model, task) | reduced_training(model, task)
save_file({k: v.contiguous() for k, v in stored.items()}, ROOT_GOLDEN / "sdaanet.safetensors")
