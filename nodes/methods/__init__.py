"""The only code of the pack that knows ComfyUI's model: patches, guiders, samplers, checks."""
