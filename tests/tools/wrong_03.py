"""Wrong answers to the exercises of notebook 03: body of the function -> slip that has to be named."""

_COSINES = """
            g = resize((masks == 1).float(), query.shape[-2:]).unsqueeze(1)
            a = F.normalize((support * g).flatten(2), dim=1)
            b = F.normalize(query.flatten(2), dim=1)
            c = torch.bmm(a.transpose(1, 2), b)"""

WRONG = {
    "my_prior": {
        "sizes do not fit": """
            s = support * (masks == 1)[:, None]
            return F.cosine_similarity(query, s)""",
        "mean of the matches": _COSINES
        + """
            r = c.sum(1) / (g.flatten(1) > 0).sum(1)[:, None]
            r = (r - r.min(1, True)[0]) / (r.max(1, True)[0] - r.min(1, True)[0] + 1e-7)
            return r.reshape(query[:, 0].shape)""",
        "softmax of the cosines": _COSINES
        + """
            r = c.softmax(1).max(1)[0]
            r = (r - r.min(1, True)[0]) / (r.max(1, True)[0] - r.min(1, True)[0])
            return r.reshape(query[:, 0].shape)""",
        "dot products": """
            g = resize((masks == 1).float(), query.shape[-2:]).unsqueeze(1)
            r = torch.bmm((support * g).flatten(2).transpose(1, 2), query.flatten(2)).max(1)[0]
            r = r - r.min(1, True)[0]
            return (r / (r.max(1, True)[0] + 1e-7)).reshape(query[:, 0].shape)""",
        "maximum over the query": _COSINES
        + """
            r = c.max(-1)[0]
            r = (r - r.min(1, True)[0]) / (r.max(1, True)[0] - r.min(1, True)[0] + 1e-7)
            return r.reshape(query[:, 0].shape)""",
        "background takes part": """
            a, b = (F.normalize(x.flatten(2), dim=1) for x in (support, query))
            r = torch.bmm(a.transpose(1, 2), b).max(1)[0]
            r = r - r.min(1, True)[0]
            return (r / (r.max(1, True)[0] + 1e-7)).reshape(query[:, 0].shape)""",
        "not stretched": _COSINES + "\n            return c.max(1)[0].reshape(query[:, 0].shape)",
        "stretched over the batch": _COSINES
        + """
            r = c.max(1)[0].reshape(query[:, 0].shape)
            return (r - r.min()) / (r.max() - r.min() + 1e-7)""",
        "minimum not subtracted": _COSINES
        + """
            r = c.max(1)[0]
            return (r / (r.max(1, True)[0] + 1e-7)).reshape(query[:, 0].shape)""",
        "255 counted as object": """
            g = resize(masks.bool().float(), query.shape[-2:])
            return prior_mask(query, support[:, None], g[:, None])[:, 0]""",
        "mask rounded": """
            g = F.interpolate((masks == 1).float().unsqueeze(1), query.shape[-2:], mode="nearest")
            return prior_mask(query, support[:, None], g)[:, 0]""",
        "empty mask": _COSINES
        + """
            r = c.max(1)[0]
            r = (r - r.min(1, True)[0]) / (r.max(1, True)[0] - r.min(1, True)[0])
            return r.reshape(query[:, 0].shape)""",
    },
    "contrast": {
        "255 counts": """
            inside = mask == 1
            return float((score[inside].mean() - score[~inside].mean()) / (score.std() + 1e-6))""",
        "not divided by the spread": "return float(score[mask == 1].mean() - score[mask == 0].mean())",
        "divided by the variance": """
            valid = score[mask < 255]
            return float((score[mask == 1].mean() - score[mask == 0].mean()) / (valid.var() + 1e-6))""",
        "sign": """
            valid = score[mask < 255]
            return float((score[mask == 0].mean() - score[mask == 1].mean()) / (valid.std() + 1e-6))""",
        "means over all pixels": """
            inside, outside = (mask == 1).float(), (mask == 0).float()
            return ((score * inside - score * outside).mean() / (score[mask < 255].std() + 1e-6)).item()""",
        "no spread": """
            s = score.numpy()
            m = mask.numpy()
            return float((s[m == 1].mean() - s[m == 0].mean()) / s[m < 255].std())""",
    },
    "attention_loss": {
        "sizes do not fit": "return F.cross_entropy(logits, masks, ignore_index=255)",
        "softmax before the cross entropy": """
            p = F.softmax(resize(logits, masks.shape[-2:]), dim=1)
            return F.cross_entropy(p, masks, ignore_index=255)""",
        "255 counted as background": """
            m = masks.clone()
            m[m == 255] = 0
            return F.cross_entropy(resize(logits, m.shape[-2:]), m)""",
        "255 counted as object": "return F.cross_entropy(resize(logits, masks.shape[-2:]), masks.clamp(max=1))",
        "classes exchanged": """
            m = torch.where(masks == 255, 255, 1 - masks)
            return F.cross_entropy(resize(logits, m.shape[-2:]), m, ignore_index=255)""",
        "divided by all pixels": """
            each = F.cross_entropy(resize(logits, masks.shape[-2:]), masks, ignore_index=255, reduction="none")
            return each.mean()""",
        "sum": """
            large = resize(logits, masks.shape[-2:])
            return F.cross_entropy(large, masks, ignore_index=255, reduction="sum")""",
        "mean over nothing": """
            large = resize(logits, masks.shape[-2:])
            losses = -large.log_softmax(1).gather(1, (masks == 1).long()[:, None])[:, 0]
            return losses[masks != 255].mean()""",
        "detached": "return segmentation(resize(logits, masks.shape[-2:]), masks).detach()",
    },
    "prior_or_attention": {
        "no measurement": "return ('The supervised head, since it was told where the object is and keeps its rank on "
        "tiny objects, whereas the prior is stretched whatever the query shows and cannot say that nothing is there.')",
    },
}
