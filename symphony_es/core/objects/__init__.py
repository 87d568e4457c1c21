"""Objects that record their own changes, and what turns live values into plain data and back."""
