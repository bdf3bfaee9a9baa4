"""What a trial reads: base models and task items, where they are and how they get here."""
