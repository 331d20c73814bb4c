"""Starting a run, in this process."""
