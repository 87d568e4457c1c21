"""Random programs over tracked objects, run beside the same programs over plain Python objects."""
