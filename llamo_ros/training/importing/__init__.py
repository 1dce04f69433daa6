"""Import of motion collections into the source layout: AMASS, HumanML3D, and folders of BVH files."""
