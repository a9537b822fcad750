"""What knows neither Ollama nor instances; every other package may import it."""
