"""Images: features made of regions, and attributions as pictures."""
