"""Where a config becomes objects: its inputs are checked, its run directory opened, its campaign run."""
