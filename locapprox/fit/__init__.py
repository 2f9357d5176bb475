"""The fit: losses, the draw and the model's answers, sums, solutions and their errors."""
