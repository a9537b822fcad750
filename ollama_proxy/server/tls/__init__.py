"""Serve clients on TLS: the certificate, its renewal, and handshakes."""
