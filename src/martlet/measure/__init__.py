"""What a bundle costs, and the ledger of receipts."""
