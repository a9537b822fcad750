"""Serve the requests that aiohttp's server reads."""
