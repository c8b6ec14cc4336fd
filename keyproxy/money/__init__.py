"""What a call costs: usage, prices, budgets, booking."""
