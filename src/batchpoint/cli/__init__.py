"""The command: click, on top of the client."""
