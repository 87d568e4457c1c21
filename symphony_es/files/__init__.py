"""Files that are there as a whole or not at all, the directories they are in, and the threads that work on them."""
