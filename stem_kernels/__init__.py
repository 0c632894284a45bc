"""Tensor mathematics of STEM inversion, TokenFlow and FateZero. Depends on torch alone, knows nothing of ComfyUI."""
