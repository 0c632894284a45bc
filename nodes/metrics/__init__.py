"""What is measured of a video, and how it is shown: measures, flow estimators, the report, plots and pictures."""
