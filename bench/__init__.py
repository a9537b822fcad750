"""Measure what a token, a request and an open stream cost, beside other proxies.

``make bench`` measures all of it, ``make bench-smoke`` a little, for correctness.
Nothing leaves this machine.
"""
