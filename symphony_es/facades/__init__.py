"""What an application calls: agents, tasks, workflows, entities, and the builders."""
