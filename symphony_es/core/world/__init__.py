"""The live entities of one Symphony, and how their changes leave."""
