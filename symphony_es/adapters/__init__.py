"""Adapters: other libraries on this log. None of them is imported before an application asks for it."""
