"""The whole chain as plain callables: text to motion, motion to text, motion to robot. No ROS."""
