"""Experiments: a typed configuration in, tidy tables and a manifest out."""
