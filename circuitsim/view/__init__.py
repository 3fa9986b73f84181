"""The live page of `circuitsim view`: what it draws, what it answers, its server, its file."""
