"""Hold what every other package may import; it knows neither Ollama nor instances."""
