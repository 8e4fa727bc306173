"""Example apps, each its own process, each with its own tidegate.yaml."""
