"""How good an explanation is, whoever made it."""
