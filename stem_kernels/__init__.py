"""Tensor mathematics of STEM inversion, TokenFlow and FateZero. Knows nothing of ComfyUI.

Depends on torch, numpy and einops alone.
"""
