"""Wrong answers to the exercises of notebook 07: body of the function -> slip that has to be named."""

WRONG = {
    "is_clear": {
        "interval alone": "return interval[1] > 0 or interval[2] < 0",
        "trainings alone": "return min(trainings) > 0 or max(trainings) < 0",
        "only gains": "return interval[1] > 0 and all(d > 0 for d in trainings)",
        "one of the two is enough": """
            signs = {d > 0 for d in trainings}
            return len(signs) == 1 or interval[1] * interval[2] > 0""",
        "most trainings": """
            sign = 1 if interval[0] > 0 else -1
            votes = [d * sign > 0 for d in trainings]
            return interval[1] * interval[2] > 0 and votes.count(True) > votes.count(False)""",
        "trainings inside the interval": """
            _, a, b = interval
            return a * b > 0 and a <= min(trainings) and max(trainings) <= b""",
        "0 at the end": "return interval[1] * interval[2] >= 0 and len({d > 0 for d in trainings}) == 1",
    },
    "conv_macs": {
        "groups forgotten": """
            a, b = layer.kernel_size
            return a * b * layer.in_channels * layer.out_channels * height * width""",
        "operations": """
            a, b = layer.kernel_size
            products = a * b * (layer.in_channels // layer.groups)
            return (products + products) * layer.out_channels * height * width""",
        "one side of the kernel": """
            products = layer.in_channels // layer.groups * layer.kernel_size[0]
            return products * layer.out_channels * height * width""",
        "square kernel": """
            products = layer.in_channels // layer.groups * layer.kernel_size[0] ** 2
            return products * layer.out_channels * height * width""",
        "input channels forgotten": """
            products = layer.kernel_size[0] * layer.kernel_size[1]
            return products * layer.out_channels * height * width""",
        "one more for each output": """
            products = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1] + 1
            return products * layer.out_channels * height * width""",
        "stride divided": """
            rows, columns = height // layer.stride[0], width // layer.stride[1]
            return layer.weight.numel() * rows * columns""",
        "parameters": "return layer.weight.shape[:2].numel() * layer.kernel_size[0] * layer.kernel_size[1]",
    },
    "miou": {
        "mean over episodes": """
            tp, fp, fn = table[:, 1].T
            return float((tp / (tp + fp + fn)).nanmean())""",
        "IoUs averaged within a class": """
            ious = table[:, 1, 0] / table[:, 1].sum(-1)
            found = [ious[classes.flatten() == c].mean() for c in classes.unique()]
            return float(torch.stack(found).nanmean())""",
        "all classes in one sum": """
            tp, fp, fn = table[:, 1].sum(0)
            return float(tp / (tp + fp + fn))""",
        "background included": """
            both = []
            for c in classes.unique():
                counts = table[classes.flatten() == c].sum(0)
                both += [counts[:, 0] / counts.sum(1)]
            return float(torch.stack(both).nanmean())""",
        "background's channel": """
            found = []
            for c in classes.unique():
                counts = table[classes.flatten() == c, 0].sum(0)
                found.append(float(counts[0] / counts.sum()))
            return sum(found) / len(found)""",
        "false positives left out": """
            found = []
            for c in classes.unique().tolist():
                tp, fp, fn = table[classes.flatten() == c, 1].sum(0).tolist()
                if tp + fn:
                    found.append(tp / (tp + fn))
            return sum(found) / len(found)""",
        "false negatives left out": """
            found = {}
            for c in classes.flatten().tolist():
                tp, fp, _ = table[:, 1][classes.flatten() == c].sum(0)
                found[c] = tp / (tp + fp)
            return float(torch.tensor(list(found.values())).nanmean())""",
        "Dice": """
            sums = torch.stack([table[classes[:, 0] == c, 1].sum(0) for c in classes.unique()])
            dice = 2 * sums[:, 0] / (2 * sums[:, 0] + sums[:, 1] + sums[:, 2])
            return dice.nanmean().item()""",
        "empty class, NaN": """
            sums = torch.stack([table[classes[:, 0] == c, 1].sum(0) for c in classes.unique()])
            return (sums[:, 0] / sums.sum(1)).mean().item()""",
        "empty class, 0": """
            found = pd.DataFrame(table[:, 1].numpy()).groupby(classes.flatten().numpy()).sum()
            return float((found[0] / found.sum(axis=1).clip(lower=1)).mean())""",
    },
    "fair_comparison": {
        "no measurement": "return ('The protocol has to be the same, above all folds and the choice of the checkpoint; "
        "then I would ask for a paired interval over episodes and for several trainings of both methods.')",
    },
}
