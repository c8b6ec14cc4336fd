"""What a call may ask for: endpoints, fields, models. No I/O."""
