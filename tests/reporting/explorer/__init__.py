"""The explorer: its data, its page, and the page over all studies."""
