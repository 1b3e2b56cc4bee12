"""Bytes: datastores and inputs, through fsspec."""
