"""Pictures that the preview nodes make of videos and features."""
