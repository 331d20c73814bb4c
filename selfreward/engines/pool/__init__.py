"""Several engines that work side by side, each in an actor of Ray: `engine.replicas`."""
