"""Multi-model variants: which replica has which model, and the loading and unloading of models."""
