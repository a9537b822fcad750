"""Know the machines that register themselves, and how they are reached."""
