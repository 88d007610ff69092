"""Wrong answers to the exercises of notebook 00: body of the function -> slip that has to be named."""

WRONG = {
    "support_mask": {
        "255 became background": "return torch.where(labels == class_id, 1, 0)",
        "255 became object": """
            wanted = (labels == class_id).logical_or(labels == 255)
            return wanted.int()""",
        "every object": """
            mask = torch.ones_like(labels)
            mask[labels == 0] = 0
            mask[labels == 255] = 255
            return mask""",
        "other classes kept": """
            mask = labels.clone()
            mask[labels == class_id] = 1
            return mask""",
        "other classes left out": """
            mask = torch.full_like(labels, 255)
            mask[labels == 0] = 0
            mask[labels == class_id] = 1
            return mask""",
        "class number kept": """
            mask = labels.clone()
            mask[(labels != class_id) & (labels != 255)] = 0
            return mask""",
        "inverted": """
            mask = torch.where(labels == class_id, 0, 1)
            mask[labels == 255] = 255
            return mask""",
        "the label 1 mixed up with class 1": """
            mask = torch.where(labels == class_id, 1, labels)
            return torch.where((mask == 1) | (mask == 255), mask, 0)""",
        "input changed": """
            rest = (labels != class_id) & (labels != 255)
            labels[labels == class_id] = 1
            labels[rest] = 0
            return labels""",
    },
    "iou_of": {
        "one number for the batch": """
            valid = target != 255
            hit = prediction[valid] * target[valid]
            return hit.sum() / (prediction[valid] + target[valid]).clamp(max=1).sum()""",
        "255 counted": """
            a, b = prediction.bool(), target == 1
            union = (a | b).sum((-2, -1))
            return torch.where(union == 0, 1.0, (a & b).sum((-2, -1)) / union)""",
        "255 counted as object": """
            a, b = prediction.bool(), target.bool()
            return ((a & b).sum((-2, -1)) + 1e-9) / ((a | b).sum((-2, -1)) + 1e-9)""",
        "divided by the target": """
            hit = ((prediction == 1) & (target == 1)).flatten(1).sum(1)
            area = (target == 1).flatten(1).sum(1)
            return torch.where(area > 0, hit / area, 1.0)""",
        "divided by the prediction": """
            valid = (target != 255).long()
            hit = (prediction * valid * (target == 1)).sum((1, 2))
            return hit / (prediction * valid).sum((1, 2)).clamp(min=1)""",
        "Dice": """
            ok = target != 255
            p, t = (prediction == 1) & ok, (target == 1) & ok
            total = p.sum((1, 2)) + t.sum((1, 2))
            return torch.where(total > 0, 2 * (p & t).sum((1, 2)) / total, 1.0)""",
        "pixel accuracy": """
            ok = target != 255
            return ((prediction == target) * ok).sum((1, 2)) / ok.sum((1, 2))""",
        "two empty masks, NaN": """
            results = []
            for p, t in zip(prediction, target):
                p, t = p[t != 255], t[t != 255]
                results.append((p * t).sum() / (p + t - p * t).sum())
            return torch.stack(results)""",
        "two empty masks, 0": """
            ok = (target != 255).float()
            p, t = prediction * ok, (target == 1).float()
            hit = (p * t).sum((1, 2))
            return hit / (p.sum((1, 2)) + t.sum((1, 2)) - hit + 1e-8)""",
    },
    "foreign_supports": {
        "nothing moved": """
            order = torch.arange(len(images))
            return images[order], masks[order]""",
        "masks stayed": "return torch.cat([images[1:], images[:1]]), masks",
        "images stayed": "return images, torch.cat([masks[1:], masks[:1]])",
        "the episode before": """
            order = torch.arange(len(images)) - 1
            return images[order], masks[order]""",
        "shifted by single values": "return torch.roll(images, -1), torch.roll(masks, -1)",
        "shots exchanged": """
            order = [(k + 1) % images.shape[2] for k in range(images.shape[2])]
            return images[:, :, order], masks[:, :, order]""",
        "last one keeps its own": """
            order = [min(b + 1, len(images) - 1) for b in range(len(images))]
            return images[order], masks[order]""",
    },
    "what_the_support_does": {
        "no measurement": "return ('The score falls far because PANet needs the support of the right class; what stays "
        "comes from neighbours that show the same class by chance, and the oracles would not move.')",
    },
}
