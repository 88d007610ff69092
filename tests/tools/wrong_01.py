"""Wrong answers to the exercises of notebook 01: body of the function -> slip that has to be named."""

WRONG = {
    "prototype": {
        "sizes do not fit": "return (features * (mask == 1)).sum((1, 2)) / (mask == 1).sum()",
        "mean over the whole image": "return features.flatten(1).mean(1)",
        "divided by the image": """
            up = F.interpolate(features[None], mask.shape, mode="bilinear", align_corners=False)[0]
            return (up * (mask == 1)).mean((-2, -1))""",
        "255 counted as object": """
            up = F.interpolate(features[None], mask.shape, mode="bilinear", align_corners=False)[0]
            m = mask.bool()
            return (up * m).sum((-2, -1)) / (m.sum() + 1e-5)""",
        "empty mask": """
            up = F.interpolate(features[None], mask.shape, mode="bilinear", align_corners=False)[0]
            return up[:, mask == 1].mean(1)""",
        "mean over the wrong axis": "return features.mean(0)",
        "normalised": """
            up = F.interpolate(features[None], mask.shape, mode="bilinear", align_corners=False)[0]
            m = (mask == 1).float()
            return F.normalize((up * m).sum((-2, -1)) / (m.sum() + 1e-5), dim=0)""",
        "detached": """
            with torch.no_grad():
                up = F.interpolate(features[None], mask.shape, mode="bilinear", align_corners=False)[0]
                m = (mask == 1).float()
                return (up * m).sum((-2, -1)) / (m.sum() + 1e-5)""",
    },
    "cosine_map": {
        "unnormalised": "return (features * prototype[:, None, None]).sum(0)",
        "only the prototype normalised": "return (features * F.normalize(prototype, dim=0)[:, None, None]).sum(0)",
        "only the features normalised": "return (F.normalize(features, dim=0) * prototype[:, None, None]).sum(0)",
        "normalised over the positions": """
            f = F.normalize(features.flatten(1), dim=1).view_as(features)
            return (f * F.normalize(prototype, dim=0)[:, None, None]).sum(0)""",
        "temperature included": "return 20 * F.cosine_similarity(features, prototype[:, None, None], dim=0)",
        "zero vector": """
            unit = features / features.norm(dim=0)
            return (unit * (prototype / prototype.norm())[:, None, None]).sum(0)""",
    },
    "temperature": {
        "logarithm of P alone": "return float(torch.tensor(probability).log() / margin)",
        "times the margin": "return float(torch.tensor(probability).logit() * margin)",
        "sign": "return -float(torch.tensor(probability).logit() / margin)",
        "P / d": "return probability / margin",
        "base 10 or 2": "return float(torch.tensor(probability / (1 - probability)).log10() / margin)",
        "the margin is forgotten": "return float(torch.tensor(probability).logit())",
    },
    "inside_only": {
        "border made background": """
            near = F.max_pool2d((masks != 1).float()[:, None], 5, 1, 2)[:, 0] > 0
            keep = ((masks == 1) & ~near).any(-1).any(-1)[:, None, None]
            return torch.where(near & (masks == 1) & keep, 0, masks)""",
        "thin objects vanish": """
            near = F.max_pool2d((masks != 1).float()[:, None], 5, 1, 2)[:, 0] > 0
            return torch.where(near & (masks == 1), 255, masks)""",
        "ring too narrow": """
            near = F.max_pool2d((masks != 1).float()[:, None], 3, 1, 1)[:, 0] > 0
            keep = ((masks == 1) & ~near).any(-1).any(-1)[:, None, None]
            return torch.where(near & (masks == 1) & keep, 255, masks)""",
        "ring outside": """
            near = F.max_pool2d((masks == 1).float()[:, None], 5, 1, 2)[:, 0] > 0
            return torch.where(near & (masks != 1), 255, masks)""",
        "input changed": """
            near = F.max_pool2d((masks != 1).float()[:, None], 5, 1, 2)[:, 0] > 0
            masks[near & (masks == 1)] = 255
            return masks""",
    },
    "box_bias": {
        "no measurement": "return ('A box always holds some background and the error points the same way in every "
        "shot, so an average over several shots keeps it, while the errors of scribbles differ and go away.')",
    },
}
