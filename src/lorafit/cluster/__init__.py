"""Work on many machines, by engines that people run already."""
