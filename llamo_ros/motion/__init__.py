"""What a frame is: skeleton, rotations, the 272-dim representation, clips, import and export."""
