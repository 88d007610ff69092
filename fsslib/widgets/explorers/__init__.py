"""The explorers, one for each idea. `fsslib.widgets` hands them on; `explorer.Explorer` is what they are made of."""
