"""What is measured of a video, beside the mathematics in stem_kernels: flow estimators, the report and its plot."""
