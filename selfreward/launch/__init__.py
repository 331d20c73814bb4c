"""How a run is started: here, in this process."""
