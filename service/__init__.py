"""How a model is served: HTTP in front of `models`, without torch."""
