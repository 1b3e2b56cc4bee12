"""Routes of /api/v1: unpack, call one operation, pack."""
