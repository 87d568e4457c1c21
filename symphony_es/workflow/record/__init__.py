"""What the events of a step say of it beyond their effect: digests of its input and its code, what it read, and what it used."""
