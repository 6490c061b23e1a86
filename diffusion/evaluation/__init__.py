"""Does the picture show what the words say?"""
