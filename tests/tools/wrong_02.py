"""Wrong answers to the exercises of notebook 02: body of the function -> slip that has to be named."""

WRONG = {
    "lasting_factor": {
        "product": """
            g = (a + 1) / 2
            f = torch.ones_like(g[:, 0])
            for k in range(a.shape[1]):
                f = f * g[:, k]
            return f * (g.mean(1) + 1) / 2""",
        "all factors multiplied": """
            g = (a + 1) / 2
            return torch.prod(g * (g + 1) / 2, dim=1)""",
        "the paper's mean": "return ((a + 1) / 2).mean(dim=1)",
        "mean squared": "return torch.mean((a + 1) / 2, 1) ** 2",
        "half of the original forgotten": "return a.mean(1) * (a.mean(1) + 1) / 2",
        "sum over the supports": """
            g = (a + 1) / 2
            return g.sum(1) * (g.mean(1) + 1) / 2""",
        "supports not merged": "return (a + 1) / 2 * ((a + 1) / 2 + 1) / 2",
        "averaged over the channels": """
            g = ((a + 1) / 2).mean(2)
            return g * (g + 1) / 2""",
        "not all supports count": """
            g = (a[:, 0] + 1) / 2
            return g * (g + 1) / 2""",
        "order of the supports": """
            g = (a + 1) / 2
            w = torch.arange(1.0, a.shape[1] + 1)
            g = (g * (w / w.sum())[:, None]).sum(1)
            return g * (g + 1) / 2""",
        "no gradient": """
            g = ((a.detach() + 1) / 2).mean(1)
            return g * (g + 1) / 2""",
    },
    "distil": {
        "tau squared is missing": """
            P, Q = torch.softmax(T / tau, 1), torch.softmax(S / tau, 1)
            return 0.9 * F.kl_div(F.log_softmax(S / tau, 1), P, reduction="none").mean()""",
        "0.9 is missing": """
            P = torch.softmax(T / tau, -1)
            return tau * tau * F.kl_div(F.log_softmax(S / tau, -1), P, reduction="none").mean()""",
        "softmax over the episodes": """
            P = torch.softmax(T / tau, 0)
            return 0.9 * tau**2 * F.kl_div(F.log_softmax(S / tau, 0), P, reduction="none").mean()""",
        "student and teacher exchanged": """
            Q = torch.softmax(S / tau, -1)
            return 0.9 * tau**2 * F.kl_div(F.log_softmax(T / tau, -1), Q, reduction="none").mean()""",
        "teacher without temperature": """
            P = torch.softmax(T, -1)
            return 0.9 * tau**2 * F.kl_div(F.log_softmax(S / tau, -1), P, reduction="none").mean()""",
        "temperature multiplied": """
            P = torch.softmax(T * tau, -1)
            return 0.9 * tau**2 * F.kl_div(F.log_softmax(S * tau, -1), P, reduction="none").mean()""",
        "summed over the channels": """
            P = torch.softmax(T / tau, -1)
            return 0.9 * tau**2 * F.kl_div(F.log_softmax(S / tau, -1), P, reduction="batchmean")""",
        "cross entropy": """
            P = torch.softmax(T / tau, -1)
            return -0.9 * tau**2 * (P * torch.log_softmax(S / tau, -1)).mean()""",
        "student not a logarithm": """
            Q, P = torch.softmax(S / tau, -1), torch.softmax(T / tau, -1)
            return 0.9 * tau**2 * F.kl_div(Q, P, reduction="none").mean()""",
        "teacher as a logarithm": """
            Q, P = torch.log_softmax(S / tau, -1), torch.log_softmax(T / tau, -1)
            return 0.9 * tau**2 * F.kl_div(Q, P, reduction="none").mean()""",
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
    "gradient_reach": {
        "the wrong way round": """
            both = {"down_supp", "sdpm"}
            return both | {"down_query"} if detached else both""",
        "detached: query still trained": 'return {"down_query", "down_supp", "sdpm"}',
        "teacher always fixed": 'return {"down_supp", "sdpm"}',
        "gate forgotten": 'return {"down_supp"} if detached else {"down_supp", "down_query"}',
        "support forgotten": 'return {"sdpm"} if detached else {"sdpm", "down_query"}',
        "detached: nobody learns": 'return set() if detached else {"down_query", "down_supp", "sdpm"}',
        "backbone learns": 'return {"backbone", "down_supp", "sdpm"} | (set() if detached else {"down_query"})',
        "unknown name": 'return {"gate", "down_supp"} | (set() if detached else {"down_query"})',
        "no set": 'return ["down_supp", "sdpm"] if detached else ["down_query", "down_supp", "sdpm"]',
    },
    "teacher_sees": {
        "no measurement": "return ('The teacher pools the query under its true mask. What the student learned is that "
        "the two projections agree, since even prototypes of the same picture came closer, and other classes too.')",
    },
}
