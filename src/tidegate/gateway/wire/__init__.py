"""Bytes in and out: the upstream HTTP client, server-sent events, the shapes of the OpenAI API."""
