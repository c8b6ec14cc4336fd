"""Which provider a call goes to: the homes of its model, those that can take it, in which order."""
