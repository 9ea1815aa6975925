"""What must be known before the store opens."""
