"""From receipts to a choice: budget, frontier, plots and the report."""
