"""Where a surrogate is fitted: distributions of ξ, and how ξ is placed around the input."""
