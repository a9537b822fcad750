"""Who may ask: rules on `Origin` and `Host`."""
