"""One trial becomes one record, in this process; knows no Ray."""
