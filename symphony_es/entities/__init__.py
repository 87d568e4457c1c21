"""The entities that come with the library, each with its restorer."""
