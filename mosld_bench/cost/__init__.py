"""What a trial takes: estimated, counted and measured."""
