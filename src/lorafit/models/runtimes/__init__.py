"""What runs a trained model: PyTorch, onnxruntime, plain libraries."""
