"""A fake upstream and the chat page, so that keyproxy runs with no key and no internet."""
