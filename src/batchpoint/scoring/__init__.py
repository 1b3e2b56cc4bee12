"""One run: files in, predictions out. Knows no server and no registry."""
