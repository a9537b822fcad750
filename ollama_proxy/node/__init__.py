"""Run the agent of a machine with Ollama: report to a hub, and work for it alone."""
