"""The sections of the report, one file each, with their tables."""
