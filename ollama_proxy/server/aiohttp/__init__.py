"""Requests that aiohttp's server reads."""
