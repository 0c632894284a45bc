"""Tensor mathematics of STEM inversion, TokenFlow and FateZero. Knows nothing of ComfyUI.

Depends on torch and numpy alone, but for `video_metrics`, whose SSIM is kornia's.
"""
