"""Pictures and videos of human and robot motion, drawn in plain Python without a display."""
