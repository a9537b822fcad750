"""Hold Ollama's API as data: its routes, requests, errors and models."""
