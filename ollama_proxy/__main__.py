"""Run the command line as ``python -m ollama_proxy``."""

from ollama_proxy.cli import main

if __name__ == "__main__":
    main()
