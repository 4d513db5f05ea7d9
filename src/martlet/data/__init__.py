"""From a log to a Dataset: reading, joining, cleaning, splitting; sources and synthetic logs."""
