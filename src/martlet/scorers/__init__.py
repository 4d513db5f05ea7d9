"""What is fitted: five scorers over tables, and the bundle that holds one on disk."""
