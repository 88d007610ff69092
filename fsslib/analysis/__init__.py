"""Numbers about methods: baselines, costs, intervals and verdicts. Nothing here draws; `fsslib.plots` does."""
