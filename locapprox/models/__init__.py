"""What users bring: inputs as tensors, models as scores."""
