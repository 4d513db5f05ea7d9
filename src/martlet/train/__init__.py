"""One loop for all that is trained by gradient: batches, losses, checkpoints, export."""
