"""The web: FastAPI."""
