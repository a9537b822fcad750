"""Show the state of the proxy to people: one page of HTML, without a script."""
