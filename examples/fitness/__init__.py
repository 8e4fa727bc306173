"""A small fitness coach on the web: get a plan, ask a question. Read journeys.py first."""
