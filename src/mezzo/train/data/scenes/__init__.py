"""Kinds of pictures. A scene is a function that draws one on a canvas of a given size and asks about it."""
