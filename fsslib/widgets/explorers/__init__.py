"""The explorers, one for each idea; a new one is a function here, and a name in `fsslib.widgets`."""
