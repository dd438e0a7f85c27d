"""Models that nobody here wrote, built and compared with themselves run plainly."""
