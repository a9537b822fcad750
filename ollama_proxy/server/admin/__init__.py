"""Serve the proxy's own endpoints: `/status`, `/healthz`, `/metrics` and `/-/`."""
