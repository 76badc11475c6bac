"""Fine-tune and honestly score a weekly stock forecaster."""
