"""What a user may ask: the rules. Every surface calls these and only these."""
