"""The jobs of `gpu_check.py`."""
