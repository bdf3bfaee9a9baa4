"""What is asked: recipes, studies, trials and budgets as plain data read from YAML; no torch."""
