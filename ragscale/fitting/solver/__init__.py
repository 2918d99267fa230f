"""How a law is fitted: the problem, variable projection, objectives and links."""
