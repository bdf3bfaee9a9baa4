"""What happened: every file under results/, written whole or not at all, read without torch."""
