"""Many trials: the plan, what is missing, where it runs, what the user sees."""
