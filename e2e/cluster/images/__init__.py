"""The images of Moorage: built from the shipped Containerfiles, and given to a node without sending anything twice."""
