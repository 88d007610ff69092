"""Wrong answers to the exercises of notebook 04: body of the function -> slip that has to be named."""

WRONG = {
    "merge_channels": {
        "SDPM adds a channel": "return width + width + int(sdpm) + int(saam) + int(prior)",
        "no prototype without SDPM": """
            total = width
            if sdpm:
                total += width
            if saam:
                total += 1
            return total + 1 if prior else total""",
        "maps as wide as features": "return width * (2 + [saam, prior].count(True))",
        "one of prototype and query": "return width + [saam, prior].count(True)",
        "maps left out": "return width * 2",
        "maps always there": "return width * 2 + 2",
        "SAAM with two channels": "return width * 2 + (2 if saam else 0) + (1 if prior else 0)",
        "prior left out": "return width * 2 + (1 if saam else 0)",
        "all four grids": "return 8 * width + 4 * (int(saam) + int(prior))",
    },
    "query_factor": {
        "second factor missing": """
            f = 1.0
            for gate in a.unbind(1):
                f = f * (gate + 1) / 2
            return f""",
        "the repaired rule": """
            g = torch.mean((a + 1) / 2, 1)
            return g * (g + 1) / 2""",
        "the paper's mean": "return (a.mean(1) + 1) / 2",
        "half of the original forgotten": "return torch.prod(a, 1) * (torch.mean(a, 1) + 1) / 2",
        "average not mixed with 1": """
            g = (a + 1) / 2
            return torch.prod(g, 1) * torch.mean(g, 1)""",
        "second factor for every shot": """
            f = 1.0
            for gate in a.unbind(1):
                g = (gate + 1) / 2
                f = f * g * (g + 1) / 2
            return f""",
        "second factor of the last shot": """
            f = 1.0
            for gate in a.unbind(1):
                g = (gate + 1) / 2
                f = f * g
            return f * (g + 1) / 2""",
        "not halved": """
            g = (a + 1) / 2
            return torch.prod(g, 1) * (torch.mean(g, 1) + 1)""",
        "product over the channels": """
            g = (a + 1) / 2
            return torch.prod(g, -1) * (torch.mean(g, -1) + 1) / 2""",
        "shots not merged": """
            g = (a + 1) / 2
            return g * (torch.mean(g, 1)[:, None] + 1) / 2""",
        "wrong gradient": """
            g = (a + 1) / 2
            return torch.prod(g, 1) * (torch.mean(g.detach(), 1) + 1) / 2""",
        "no gradient": """
            g = (a.detach() + 1) / 2
            return torch.prod(g, 1) * (torch.mean(g, 1) + 1) / 2""",
    },
    "total_loss": {
        "no weights": "return sum((main, aux, kd, saam))",
        "kd unweighted": "return main + aux + kd + saam / 2",
        "saam unweighted": "return main + aux + kd * 50 + saam",
        "weights exchanged": "return main + aux + kd / 2 + saam * 50",
        "aux forgotten": "return main + kd * 50 + saam / 2",
        "kd forgotten": "return main + aux + saam / 2",
        "saam forgotten": "return main + aux + kd * 50",
        "aux counts less": "return main + aux * 0.4 + kd * 50 + saam / 2",
        "mean of the terms": "return torch.stack([main, aux, 50 * kd, saam / 2]).mean()",
        "no gradient": "return main.item() + aux.item() + 50 * kd.item() + saam.item() / 2",
        "wrong gradient": "return main + aux + 50 * kd.detach() + saam / 2",
    },
    "which_part": {
        "no measurement": "return ('None of them: every paired interval of the parts holds zero or the trainings do "
        "not agree on the sign, so that I could not tell a gain from luck with the seed of a run.')",
    },
}
