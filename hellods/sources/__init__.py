"""Real images: folders of image files, and what is in memory."""
