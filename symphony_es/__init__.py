"""An event-sourced state system for workflows and agents."""
