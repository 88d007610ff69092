"""Wrong answers to the exercises of notebook 06: body of the function -> slip that has to be named."""

WRONG = {
    "inverse_attention": {
        "softmax over the support": "return torch.softmax(S, -1) * mask[None]",
        "softmax over the support's object": """
            scores = S.clone()
            scores[:, mask == 0] = float("-inf")
            return scores.softmax(-1)""",
        "the mask is missing": "return F.softmax(S, dim=0)",
        "masked before the softmax": "return F.softmax(S * mask[None], dim=0)",
        "minus infinity before the softmax": "return torch.where(mask == 1, S, -torch.inf).softmax(0)",
        "normalised again": """
            A = F.softmax(S, dim=0) * mask
            return A / A.sum(-1, keepdim=True)""",
        "mask on the query": "return S.softmax(0) * mask.unsqueeze(1)",
        "overflow": """
            e = torch.exp(S)
            return e / e.sum(0, keepdim=True) * mask""",
        "detached": "return torch.tensor(S.detach().numpy()).softmax(0) * mask",
    },
    "correlation_map": {
        "the mask is missing": "return S.mean(-1)",
        "divided by all cells": "return (S * mask).sum(-1) / S.shape[-1]",
        "not divided": "return (S * mask).sum(1)",
        "best match": "return S[:, mask == 1].amax(1)",
        "softmax before the mean": "return (F.softmax(S, dim=0) * mask).sum(1) / (mask.sum() + 1e-9)",
        "mean over the query": "return (S * mask).mean(0)",
        "temperature twice": "return (S * mask).sum(1) / (mask.sum() + 1e-9) / 0.1",
        "empty mask": "return S[:, mask.bool()].mean(1)",
    },
    "lesson": {
        "reverse divergence": """
            T, W = teacher.detach().flatten(1).softmax(1), student.flatten(1).softmax(1)
            return (W * (W.log() - T.log())).sum(1).mean()""",
        "mean over the cells": """
            T = teacher.detach().flatten(1).softmax(1)
            return F.kl_div(student.flatten(1).log_softmax(1), T, reduction="mean")""",
        "sum over the batch": """
            T = teacher.detach().flatten(1).softmax(1)
            return F.kl_div(student.flatten(1).log_softmax(1), T, reduction="sum")""",
        "cross entropy": "return F.cross_entropy(student.flatten(1), teacher.detach().flatten(1).softmax(1))",
        "softmax over one axis": """
            T, W = teacher.detach().softmax(-1), student.softmax(-1)
            return (T * (T / W).log()).sum((1, 2)).mean()""",
        "softmax over the batch": """
            T, W = teacher.detach().softmax(0), student.softmax(0)
            return (T * (T.log() - W.log())).sum((1, 2)).mean()""",
        "squared difference": "return ((teacher.detach() - student) ** 2).mean()",
        "sign": """
            T, W = teacher.detach().flatten(1).softmax(1), student.flatten(1).softmax(1)
            return (T * (W.log() - T.log())).sum(1).mean()""",
        "logarithm of zero": """
            T, W = teacher.detach().flatten(1).softmax(1), student.flatten(1).softmax(1)
            return (T * (T.log() - W.log())).sum(1).mean()""",
        "teacher learns": """
            T, W = teacher.flatten(1).softmax(1), student.flatten(1).softmax(1)
            return F.kl_div(W.log(), T, reduction="batchmean")""",
        "student detached": """
            T, W = teacher.flatten(1).softmax(1), student.detach().flatten(1).softmax(1)
            return F.kl_div(W.log(), T, reduction="batchmean")""",
    },
    "lives_on_priors": {
        "no measurement": "return ('The priors join the query before the transformer, hence it knows already where the "
        "object is and never had to match; only a network retrained without priors shows what matching could do.')",
    },
}
