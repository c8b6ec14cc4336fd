"""What a call costs: usage, prices, budgets, the ledger."""
