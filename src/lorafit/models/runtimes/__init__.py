"""What runs a trained model: PyTorch, onnxruntime, OpenVINO, plain libraries."""
