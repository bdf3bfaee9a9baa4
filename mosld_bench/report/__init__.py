"""The answer: a pure function of a study and its records."""
