"""Amazon SageMaker real-time inference on your own machines, streaming first."""

__version__ = "0.1.0"
