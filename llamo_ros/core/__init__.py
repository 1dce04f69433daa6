"""What every room shares: errors, resources, seeds. No model, no ROS."""
