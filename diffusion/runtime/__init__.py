"""What runs the stages: compiled programs, devices, memory, files that appear whole."""
