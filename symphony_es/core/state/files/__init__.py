"""Files that are there as a whole or not at all, and a key/value storage made of them."""
