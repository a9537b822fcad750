"""Stand in for Ollama: its API and its manners, with made-up words.

It is what `local` starts where no ``ollama`` is installed, the upstream of the
tests, and ``python -m ollama_proxy.simulator`` alone. It says in every answer
that it is one. Shapes and headers follow Ollama v0.33 as observed on the wire.
"""
