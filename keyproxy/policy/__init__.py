"""What a call may ask for: endpoints, bodies, fields, models. No I/O."""
