"""Wrong answers to the exercises, as students write them: exercise -> slip that has to be named -> body.

The usual slips are tested with their own answers as well; here are other forms, and what no slip computes.
"""

# fmt: off
WRONG = {
    "support_mask": {
        "255 became background": "return torch.where(labels == class_id, 1, 0)",
        "input changed": """
            rest = (labels != class_id) & (labels != 255)
            labels[labels == class_id] = 1
            labels[rest] = 0
            return labels""",
    },
    "foreign_supports": {"masks stayed": "return torch.cat([images[1:], images[:1]]), masks"},
    "prototype": {
        "sizes do not fit": "return (features * (mask == 1)).sum((1, 2)) / (mask == 1).sum()",
        "mean over the whole image": "return features.flatten(1).mean(1)",
        "detached": """
            with torch.no_grad():
                up = F.interpolate(features[None], mask.shape, mode="bilinear", align_corners=False)[0]
                m = (mask == 1).float()
                return (up * m).sum((-2, -1)) / (m.sum() + 1e-5)""",
    },
    "cosine_map": {"unnormalised": "return (features * prototype[:, None, None]).sum(0)"},
    "temperature": {"logarithm of P alone": "return float(torch.tensor(probability).log() / margin)"},
    "inside_only": {
        "input changed": """
            near = F.max_pool2d((masks != 1).float()[:, None], 5, 1, 2)[:, 0] > 0
            masks[near & (masks == 1)] = 255
            return masks""",
    },
    "lasting_factor": {
        "the paper's mean": "return ((a + 1) / 2).mean(dim=1)",
        "not all supports count": "g = (a[:, 0] + 1) / 2; return g * (g + 1) / 2",
        "order of the supports": """
            g = (a + 1) / 2
            w = torch.arange(1.0, a.shape[1] + 1)
            g = (g * (w / w.sum())[:, None]).sum(1)
            return g * (g + 1) / 2""",
        "no gradient": "g = ((a.detach() + 1) / 2).mean(1); return g * (g + 1) / 2",
    },
    "distil": {
        "logarithm of 0": """
            Q, P = torch.softmax(S / tau, -1), torch.softmax(T / tau, -1)
            return 0.9 * tau**2 * (P * (P / Q).log()).mean()""",
        "shares are cut off": """
            Q, P = torch.softmax(S / tau, -1) + 1e-12, torch.softmax(T / tau, -1) + 1e-12
            return 0.9 * tau**2 * (P * (P / Q).log()).mean()""",
        "teacher cut off": """
            P = torch.softmax(T.detach() / tau, -1)
            return 0.9 * tau**2 * F.kl_div(F.log_softmax(S / tau, -1), P, reduction="none").mean()""",
        "no gradient": """
            P = torch.softmax(T / tau, -1)
            return (0.9 * tau**2 * F.kl_div(F.log_softmax(S / tau, -1), P, reduction="none").mean()).item()""",
    },
    "sdpm_loss": {
        "no gradient": """
            with torch.no_grad():
                mean = lambda f, m: (f * m[:, None]).sum((2, 3)) / (m.sum((1, 2)) + 5e-4)[:, None]
                p, t = mean(support, support_mask), mean(query, query_mask)
                S = (gate(p) + 1) / 2 * p
                Q, P = torch.log_softmax(S / tau, -1), torch.log_softmax((S + t) / 2 / tau, -1)
                return 0.9 * tau**2 * (P.exp() * (P - Q)).mean()""",
        "wrong gradient": """
            mean = lambda f, m: (f * m[:, None]).sum((2, 3)) / (m.sum((1, 2)) + 5e-4)[:, None]
            p, t = mean(support, support_mask), mean(query, query_mask)
            S = (gate(p) + 1) / 2 * p
            Q, P = torch.log_softmax(S / tau, -1), torch.log_softmax((S + t) / 2 / tau, -1).detach()
            return 0.9 * tau**2 * (P.exp() * (P - Q)).mean()""",
    },
    "gradient_reach": {
        "the wrong way round": 'both = {"down_supp", "sdpm"}; return both | {"down_query"} if detached else both',
        "detached: query still trained": 'return {"down_query", "down_supp", "sdpm"}',
        "teacher always fixed": 'return {"down_supp", "sdpm"}',
        "gate forgotten": 'return {"down_supp"} if detached else {"down_supp", "down_query"}',
        "support forgotten": 'return {"sdpm"} if detached else {"sdpm", "down_query"}',
        "detached: nobody learns": 'return set() if detached else {"down_query", "down_supp", "sdpm"}',
        "backbone learns": 'return {"backbone", "down_supp", "sdpm"} | (set() if detached else {"down_query"})',
        "unknown name": 'return {"gate", "down_supp"} | (set() if detached else {"down_query"})',
        "no set": 'return ["down_supp", "sdpm"] if detached else ["down_query", "down_supp", "sdpm"]',
    },
    "my_prior": {"sizes do not fit": "s = support * (masks == 1)[:, None]; return F.cosine_similarity(query, s)"},
    "contrast": {
        "255 counts": """
            inside = mask == 1
            return float((score[inside].mean() - score[~inside].mean()) / (score.std() + 1e-6))""",
        "not divided by the spread": "return float(score[mask == 1].mean() - score[mask == 0].mean())",
    },
    "attention_loss": {
        "sizes do not fit": "return F.cross_entropy(logits, masks, ignore_index=255)",
        "255 counted as object": "return F.cross_entropy(resize(logits, masks.shape[-2:]), masks.clamp(max=1))",
        "detached": "return segmentation(resize(logits, masks.shape[-2:]), masks).detach()",
    },
    "merge_channels": {"SDPM adds a channel": "return width + width + int(sdpm) + int(saam) + int(prior)"},
    "query_factor": {
        "the paper's mean": "return (a.mean(1) + 1) / 2",
        "wrong gradient": "g = (a + 1) / 2; return torch.prod(g, 1) * (torch.mean(g.detach(), 1) + 1) / 2",
        "no gradient": "g = (a.detach() + 1) / 2; return torch.prod(g, 1) * (torch.mean(g, 1) + 1) / 2",
    },
    "total_loss": {
        "no weights": "return sum((main, aux, kd, saam))",
        "no gradient": "return main.item() + aux.item() + 50 * kd.item() + saam.item() / 2",
        "wrong gradient": "return main + aux + 50 * kd.detach() + saam / 2",
    },
    "soft_assign": {"not divided": "return torch.exp(-(centres[:, None] - cells).norm(dim=-1))"},
    "my_allocation": {
        "detached": """
            with torch.no_grad():
                found = allocate(query, prototypes, used)
            return found.features, found.probability""",
    },
    "normalised_map": {"sum": "return allocate(query, prototypes, used).probability"},
    "guide_range": {"N_max for every object": "return most * len(areas), -most * len(areas), most * len(areas)"},
    "inverse_attention": {
        "softmax over the support": "return torch.softmax(S, -1) * mask[None]",
        "detached": "return torch.tensor(S.detach().numpy()).softmax(0) * mask",
    },
    "correlation_map": {"the mask is missing": "return S.mean(-1)"},
    "lesson": {
        "cross entropy": "return F.cross_entropy(student.flatten(1), teacher.detach().flatten(1).softmax(1))",
        "teacher learns": """
            T, W = teacher.flatten(1).softmax(1), student.flatten(1).softmax(1)
            return F.kl_div(W.log(), T, reduction="batchmean")""",
        "student detached": """
            T, W = teacher.flatten(1).softmax(1), student.detach().flatten(1).softmax(1)
            return F.kl_div(W.log(), T, reduction="batchmean")""",
    },
    "is_clear": {"interval alone": "return interval[1] > 0 or interval[2] < 0"},
    "smallest_size": {"not rounded to 8k + 1": "return -(-8 * cells * side // pixels)"},
    "nearest_side": {
        "unmarked cells silence the rest": "return (labels[cosines.argmax(1)] == 1).long()",
        "mean instead of the nearest": """
            sides = [cosines[:, labels == value].mean(-1) for value in (0, 1)]
            return (sides[1] > sides[0]).long()""",
    },
    "smoothed": {
        "weights of the wrong side": """
            unit = F.normalize(features, dim=0)
            return scores @ torch.softmax(unit.T @ unit / temperature, 0).T""",
        "dot product": "return scores @ (features.T @ features / temperature).softmax(-1).T",
    },
    "conv_macs": {"parameters": "return layer.weight.shape[:2].numel() * layer.kernel_size[0] * layer.kernel_size[1]"},
}
# fmt: on
