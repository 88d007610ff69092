"""The explorers, one for each idea; a new one is a function here, and a line in `fsslib.widgets`."""
