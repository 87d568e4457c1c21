"""What an application calls: agents, tasks, workflows, entities."""
