"""Hold the backends that come with the proxy, and the contract that checks them all."""
