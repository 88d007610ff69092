"""Wrong answers to the exercises of notebook 05: body of the function -> slip that has to be named."""

WRONG = {
    "soft_assign": {
        "sum over the superpixels": """
            distance = (centres[:, None] - cells).norm(dim=-1)
            return torch.softmax(-distance, dim=0)""",
        "not divided": "return torch.exp(-(centres[:, None] - cells).norm(dim=-1))",
        "far cells weigh most": "return (centres[:, None] - cells).norm(dim=-1).softmax(dim=-1)",
        "squared distance": "return (-(centres[:, None] - cells).square().sum(-1)).softmax(dim=-1)",
        "nearest centre only": """
            distance = (centres[:, None] - cells).norm(dim=-1)
            return (distance == distance.min(dim=0).values).float()""",
        "underflow": """
            weights = torch.exp(-(centres[:, None] - cells).norm(dim=-1))
            return weights / weights.sum(dim=1)[:, None]""",
    },
    "my_allocation": {
        "dot products": """
            c = torch.stack([torch.einsum("pc,chw->phw", p, q) for p, q in zip(prototypes, query)])
            best = c.masked_fill(~used[..., None, None], -1e9).max(1).indices
            guide = torch.stack([p[i].permute(2, 0, 1) for p, i in zip(prototypes, best)])
            return guide, (c * used[..., None, None]).sum(1, keepdim=True)""",
        "only the prototypes normalised": """
            c = torch.einsum("bpc,bchw->bphw", F.normalize(prototypes, dim=-1), query)
            best = c.masked_fill(~used[..., None, None], -1e9).max(1).indices
            guide = torch.stack([p[i].permute(2, 0, 1) for p, i in zip(prototypes, best)])
            return guide, (c * used[..., None, None]).sum(1, keepdim=True)""",
        "zero beats negative": """
            c = F.cosine_similarity(prototypes[..., None, None], query[:, None], dim=2) * used[..., None, None]
            guide = torch.stack([p[i].permute(2, 0, 1) for p, i in zip(prototypes, c.argmax(1))])
            return guide, c.sum(1, keepdim=True)""",
        "unused prototypes count": """
            c = F.cosine_similarity(prototypes[..., None, None], query[:, None], dim=2)
            guide = torch.stack([p[i].permute(2, 0, 1) for p, i in zip(prototypes, c.argmax(1))])
            return guide, c.sum(1, keepdim=True)""",
        "infinite sum": """
            c = F.cosine_similarity(prototypes[..., None, None], query[:, None], dim=2)
            c[~used] = float("-inf")
            guide = torch.stack([p[i].permute(2, 0, 1) for p, i in zip(prototypes, c.argmax(1))])
            return guide, c.sum(1, keepdim=True)""",
        "unit vectors handed out": """
            p = F.normalize(prototypes, dim=-1)
            c = torch.einsum("bpc,bchw->bphw", p, F.normalize(query, dim=1))
            best = c.masked_fill(~used[..., None, None], -1e9).argmax(1)
            guide = torch.stack([v[i].permute(2, 0, 1) for v, i in zip(p, best)])
            return guide, (c * used[..., None, None]).sum(1, keepdim=True)""",
        "mean": """
            found = allocate(query, prototypes, used)
            return found.features, found.probability / used.sum(1)[:, None, None, None]""",
        "maximum": """
            found = allocate(query, prototypes, used)
            c = found.similarity.clone()
            c[~used] = -2
            return found.features, c.max(1, keepdim=True).values""",
        "detached": """
            with torch.no_grad():
                found = allocate(query, prototypes, used)
            return found.features, found.probability""",
    },
    "normalised_map": {
        "sum": "return allocate(query, prototypes, used).probability",
        "divided by all rows": "return allocate(query, prototypes, used).probability / prototypes.shape[1]",
        "divided by the whole batch": "return allocate(query, prototypes, used).probability / used.float().sum()",
        "numbers along the wrong axis": "return allocate(query, prototypes, used).probability / used.sum(1)",
        "stretched to 0..1": """
            total = allocate(query, prototypes, used).probability
            flat = total.flatten(1)
            low, high = (x.view(-1, 1, 1, 1) for x in (flat.min(1).values, flat.max(1).values))
            return (total - low) / (high - low)""",
        "sigmoid": "return torch.sigmoid(allocate(query, prototypes, used).probability)",
        "maximum": """
            found = allocate(query, prototypes, used)
            return found.similarity.masked_fill(~used[..., None, None], -1).max(1, keepdim=True).values""",
    },
    "guide_range": {
        "none for small objects": """
            n = sum(min(round(a / superpixel_area), most) for a in areas)
            return n, -n, n""",
        "rounded down": """
            n = sum(min(max(a // superpixel_area, 1), most) for a in areas)
            return n, -n, n""",
        "no upper limit": """
            n = sum(max(round(a / superpixel_area), 1) for a in areas)
            return n, -n, n""",
        "one limit for all": """
            n = min(sum(max(round(a / superpixel_area), 1) for a in areas), most)
            return n, -n, n""",
        "N_max for every object": "return most * len(areas), -most * len(areas), most * len(areas)",
        "one for each support": "return len(areas), -len(areas), len(areas)",
        "range of a single cosine": """
            n = sum(min(max(round(a / superpixel_area), 1), most) for a in areas)
            return n, -1, 1""",
        "not below zero": """
            n = sum(min(max(round(a / superpixel_area), 1), most) for a in areas)
            return n, 0, n""",
    },
    "several_pay": {
        "no measurement": "return ('Several prototypes would help if the parts of an object looked different and the "
        "clusters kept them apart, but here their cosines are high and each also resembles the background.')",
    },
}
