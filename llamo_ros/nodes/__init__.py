"""ROS 2 nodes: they translate between topics and the pipelines, and hold no maths of their own."""
