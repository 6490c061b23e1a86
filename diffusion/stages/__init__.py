"""The six rooms of the art class, one file each."""
